package wire_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trivet/proxy/wire"
	"trivet/proxy/wire/hostile"
	"trivet/proxy/wire/obvious"
)

// Small limits, so that fuzzing meets them.
var (
	fuzzLimits    = wire.Limits{Target: 60, Field: 90, Head: 400, Count: 9}
	obviousLimits = obvious.Limits(fuzzLimits)
)

var requestSeeds = []string{
	"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"\r\n\r\nGET /a/%41?b=%&c#d HTTP/1.0\r\nConnection: keep-alive, x-a\r\nX-A: \xe9\t1 \r\n\r\n",
	"POST http://[::ffff:1.2.3.4]:80?q HTTP/1.1\r\nHost: [::FFFF:1.2.3.4]:80\r\nTransfer-Encoding: Chunked\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: a.b_c.:65535\r\nConnection: upgrade,te,,\r\nUpgrade: h2c/1, websocket\r\nTE: x, Trailers\r\n\r\n",
	"OPTIONS https://a HTTP/1.1\r\nhost:\ta\t\r\nExpect: 100-Continue\r\nContent-Length: 0012\r\n\r\n",
	"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 0\r\n\r\n",
	"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
	"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
	"GET /x HTTP/2.0\r\nHost : a\r\n b: c\r\n\r\n",
	"TRACE / HTTP/1.1\nHost: a\n\nContent-Length: 1\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent_Length: 3\r\n\r\n",
}

func FuzzRequest(f *testing.F) {
	for _, s := range requestSeeds {
		f.Add([]byte(s))
	}
	for _, c := range hostile.Cases() {
		if len(c.Send) < 1000 {
			f.Add(c.Send)
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		end := checkHeadEnd(t, stream)
		for _, head := range [][]byte{stream, stream[:end]} {
			compareRequest(t, head)
		}
	})
}

// checkHeadEnd compares both ways to find a head's end, and the quick one with
// itself where the stream comes byte by byte and in two parts.
func checkHeadEnd(t *testing.T, stream []byte) int {
	t.Helper()
	want := obvious.HeadEnd(stream)
	got := headEnd(stream, 0)
	if got != want {
		t.Fatalf("head's end: got %d, want %d: %q", got, want, stream)
	}
	for _, step := range []int{1, 2, 3, len(stream)/2 + 1} {
		if got := headEndInSteps(stream, step); got != want {
			t.Fatalf("head's end in steps of %d: got %d, want %d: %q", step, got, want, stream)
		}
	}
	return max(got, 0)
}

func headEnd(b []byte, from int) int {
	end, err := wire.HeadEnd(b, from)
	if err != nil {
		return -1
	}
	return end
}

func headEndInSteps(b []byte, step int) int {
	for from, n := 0, 0; ; from = n {
		n = min(n+step, len(b))
		if end := headEnd(b[:n], from); end != 0 || n == len(b) {
			return end
		}
	}
}

func compareRequest(t *testing.T, head []byte) {
	t.Helper()
	var r wire.Request
	err := r.Parse(head, &fuzzLimits)
	want, statuses := obvious.ParseRequest(head, obviousLimits)
	if err != nil {
		checkStatus(t, err, statuses, head)
		return
	}
	if want == nil {
		t.Fatalf("parsed, but it deserves %v: %q", statuses, head)
	}
	got := &obvious.Request{
		Method: obvious.Latin1(r.Method), Scheme: obvious.Latin1(r.Scheme), Host: obvious.Latin1(r.Host),
		Path: obvious.Latin1(r.Path), Upgrade: obvious.Latin1(r.Upgrade), Fields: plain(r.Fields), Length: r.Length,
		Minor: int(r.Minor), Close: r.Close, Expect: r.Expect, Trailers: r.Trailers,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%q: -want +got:\n%s", head, diff)
	}
	checkKinds(t, r.Fields)
	rewriteRequest(t, &r)
}

func checkStatus(t *testing.T, err error, statuses []int, head []byte) {
	t.Helper()
	e, ok := errors.AsType[*wire.Error](err)
	if !ok || !slices.Contains(statuses, e.Status) {
		t.Fatalf("got %#v, want one of the statuses %v: %q", err, statuses, head)
	}
}

func plain(fields []wire.Field) (all []obvious.Field) {
	for _, f := range fields {
		all = append(all, obvious.Field{
			Name: obvious.Latin1(f.Name), Value: obvious.Latin1(f.Value), Hop: f.Kind.HopByHop(),
		})
	}
	return all
}

// checkKinds compares each field's Kind with that of its name in lower case.
func checkKinds(t *testing.T, fields []wire.Field) {
	t.Helper()
	for _, f := range fields {
		want := wire.KindOf(bytes.ToLower(f.Name))
		if f.Kind != want && f.Kind != wire.Hop {
			t.Fatalf("kind of %q: got %d, want %d", f.Name, f.Kind, want)
		}
	}
}

// rewriteRequest writes what was parsed and reads that again.
func rewriteRequest(t *testing.T, r *wire.Request) {
	t.Helper()
	target := r.Path
	if string(r.Method) == "CONNECT" {
		target = r.Host
	}
	b := wire.AppendRequestLine(nil, r.Method, target)
	for _, f := range r.Fields {
		b = wire.AppendField(b, f.Name, f.Value)
	}
	var again wire.Request
	if err := again.Parse(wire.AppendEnd(b), nil); err != nil {
		if r.Minor == 0 { // what 1.0 may leave out or must ignore counts in 1.1
			return
		}
		t.Fatalf("%q: %v", b, err)
	}
	if diff := cmp.Diff(plain(r.Fields), plain(again.Fields)); diff != "" || again.Length != r.Length ||
		!bytes.Equal(again.Path, r.Path) || !strings.EqualFold(string(again.Host), string(r.Host)) && len(r.Host) > 0 && wire.Find(r.Fields, wire.Host) != nil {
		t.Fatalf("%q read again: %+v\n%s", b, again, diff)
	}
}

func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 204\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		"HTTP/1.0 304 \r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 599 \xe9\t\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3,3\r\n\r\n",
	} {
		for method := range responseMethods {
			f.Add([]byte(s), byte(method))
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, method byte) {
		end := checkHeadEnd(t, stream)
		for _, head := range [][]byte{stream, stream[:end]} {
			compareResponse(t, head, responseMethods[int(method)%len(responseMethods)])
		}
	})
}

var responseMethods = []string{"GET", "HEAD", "CONNECT"}

func compareResponse(t *testing.T, head []byte, method string) {
	t.Helper()
	var r wire.Response
	err := r.Parse(head, []byte(method), &fuzzLimits)
	want, ok := obvious.ParseResponse(head, method, obviousLimits)
	if err != nil {
		if e, typed := errors.AsType[*wire.Error](err); ok || !typed || e.Status != 502 {
			t.Fatalf("got %#v, want that it is parsed (%v) or 502: %q", err, ok, head)
		}
		return
	}
	if !ok {
		t.Fatalf("parsed, but it must not be: %q", head)
	}
	got := &obvious.Response{
		Status: r.Status, Reason: obvious.Latin1(r.Reason), Fields: plain(r.Fields), Length: r.Length,
		Declared: r.Declared, Minor: int(r.Minor), Close: r.Close,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%q: -want +got:\n%s", head, diff)
	}
	checkKinds(t, r.Fields)
}

func FuzzChunks(f *testing.F) {
	for _, s := range []string{
		"5\r\nhello\r\n0\r\n\r\nrest",
		"000a;a;b=c ; d = \"\\\"e\xe9\t\"\r\n0123456789\r\n00\r\nX-A: b\r\nDate:c\r\n\r\n",
		"1 \r\nx\r\n0\r\n\r\n",
		"7fffffffffffffff\r\nx",
		"3;\nabc\r\n0\r\n\r\n",
		"0\r\nContent-Length: 5\r\n\r\n",
		"0\r\nA:b\n\r\n",
		"2\r\nabX0\r\n\r\n",
	} {
		f.Add([]byte(s), uint16(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint16) {
		want, verdict := obvious.Chunks(stream)
		for _, step := range []int{len(stream), 1, int(seed)%7 + 2} {
			compareChunks(t, stream, step, want, verdict)
		}
		roundChunks(t, stream, int(seed)%50+1)
	})
}

// compareChunks feeds stream in steps of that many bytes.
func compareChunks(t *testing.T, stream []byte, step int, want obvious.Body, verdict obvious.Verdict) {
	t.Helper()
	var c wire.Chunks
	got, n, err := readChunks(&c, stream, step)
	switch {
	case err != nil:
		if verdict == obvious.Whole || verdict == obvious.Incomplete && completes(stream) {
			t.Fatalf("in steps of %d: %v; want that it is read: %q", step, err, stream)
		}
		return
	case c.Done() != (verdict == obvious.Whole) || verdict == obvious.Refused:
		t.Fatalf("in steps of %d: done %v, want verdict %d: %q", step, c.Done(), verdict, stream)
	}
	if !bytes.Equal(got, want.Data) {
		t.Fatalf("in steps of %d: got %q, want %q of %q", step, got, want.Data, stream)
	}
	if c.Done() {
		checkEnd(t, &c, stream[n:], want)
	}
}

func checkEnd(t *testing.T, c *wire.Chunks, rest []byte, want obvious.Body) {
	t.Helper()
	if !bytes.Equal(rest, want.Rest) {
		t.Fatalf("rest: got %q, want %q", rest, want.Rest)
	}
	var kept []obvious.Field
	for _, f := range want.Trailer {
		switch wire.KindOf([]byte(f.Name)) {
		case wire.Other, wire.Date, wire.ETag, wire.LastModified:
			kept = append(kept, f)
		}
	}
	if diff := cmp.Diff(kept, plain(c.Trailer())); diff != "" {
		t.Fatalf("trailer: -want +got:\n%s", diff)
	}
}

func readChunks(c *wire.Chunks, stream []byte, step int) (data []byte, read int, err error) {
	for start := 0; start < len(stream) && !c.Done(); start += step {
		for b := stream[start:min(start+step, len(stream))]; len(b) > 0 && !c.Done(); {
			d, n, err := c.Next(b)
			if err != nil {
				return nil, 0, err
			}
			if n == 0 {
				panic("nothing read")
			}
			data, b, read = append(data, d...), b[n:], read+n
		}
	}
	return data, read, nil
}

// completes says that some way to go on makes a whole body of stream.
func completes(stream []byte) bool {
	for _, more := range []string{"", "\n", "x\r\n", "\r\n", "=x\r\n", "\"\r\n", "x\"\r\n", "0\r\n", "x:\r\n", ":\r\n"} {
		for _, end := range []string{"", "\r\n", "0\r\n\r\n"} {
			if _, v := obvious.Chunks(append(bytes.Clone(stream), more+end...)); v == obvious.Whole {
				return true
			}
		}
	}
	return false
}

// roundChunks writes data in chunks of that size and reads them again.
func roundChunks(t *testing.T, data []byte, size int) {
	t.Helper()
	var b []byte
	for rest := data; len(rest) > 0; {
		n := min(size, len(rest))
		b = wire.AppendChunkHead(b, n)
		b = append(append(b, rest[:n]...), "\r\n"...)
		rest = rest[n:]
	}
	trailer := []wire.Field{{Name: []byte("X-Sum"), Value: []byte("1")}}
	b = wire.AppendTrailer(b, trailer)
	var c wire.Chunks
	got, n, err := readChunks(&c, b, len(b))
	if err != nil || n != len(b) || !c.Done() || !bytes.Equal(got, data) {
		t.Fatalf("%q: got %q, %d of %d bytes, %v", b, got, n, len(b), err)
	}
	if diff := cmp.Diff(plain(trailer), plain(c.Trailer())); diff != "" {
		t.Fatalf("trailer: -want +got:\n%s", diff)
	}
}
