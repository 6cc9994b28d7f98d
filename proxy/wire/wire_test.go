package wire_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trivet/proxy/wire"
)

const (
	tiny    = "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
	browser = "GET /articles/2026/11/the-quick-brown-fox?utm_source=feed&utm_medium=rss HTTP/1.1\r\n" +
		"Host: www.example.com\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
		"Accept-Language: en-US,en;q=0.5\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
		"Connection: keep-alive\r\n" +
		"Referer: https://www.example.com/articles/\r\n" +
		"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
		"Upgrade-Insecure-Requests: 1\r\n" +
		"Sec-Fetch-Dest: document\r\n" +
		"Sec-Fetch-Mode: navigate\r\n" +
		"Priority: u=0, i\r\n\r\n"
	answer = "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 23:45:00 GMT\r\n" +
		"Content-Type: text/html; charset=utf-8\r\nContent-Length: 130\r\nCache-Control: max-age=60\r\n\r\n"
)

var limits = &wire.Limits{Target: 8 << 10, Field: 16 << 10, Head: 64 << 10, Count: 100}

func TestParseRequest(t *testing.T) {
	const head = "\r\nPOST http://Example.com:80?q=1 HTTP/1.1\r\nHost: example.com:80\r\nConnection: x-a, upgrade\r\n" +
		"x-A: 1\r\nUpgrade: websocket, x\r\nTE: trailers\r\nExpect: 100-continue\r\nContent-Length: 7\r\nX-Empty:\r\n\r\n"
	var r wire.Request
	if err := r.Parse([]byte(head), limits); err != nil {
		t.Fatal(err)
	}
	got := []string{string(r.Method), string(r.Scheme), string(r.Host), string(r.Path), string(r.Upgrade)}
	want := []string{"POST", "http", "Example.com:80", "/?q=1", "websocket"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if r.Length != 7 || r.Major != 1 || r.Minor != 1 || r.Close || !r.Expect || !r.Trailers {
		t.Errorf("got %+v", r)
	}
	if k := r.Fields[2].Kind; k != wire.Hop {
		t.Errorf("kind of a field that Connection names: got %d, want %d", k, wire.Hop)
	}
	if v := wire.Get(r.Fields, "X-EMPTY"); v == nil || len(v) > 0 {
		t.Errorf("an empty field: got %q, want that it is there", v)
	}
	if v := wire.Find(r.Fields, wire.Cookie); v != nil {
		t.Errorf("a field that is not there: got %q", v)
	}
}

// TestUsedAgain wants nothing of one message in the next.
func TestUsedAgain(t *testing.T) {
	var r wire.Request
	for _, head := range []string{browser, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", tiny} {
		if err := r.Parse([]byte(head), limits); err != nil {
			t.Fatal(err)
		}
	}
	var fresh wire.Request
	if err := fresh.Parse([]byte(tiny), limits); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fresh, r, cmp.AllowUnexported(wire.Request{})); diff != "" {
		t.Errorf("-fresh +used again:\n%s", diff)
	}
}

func TestResponseLength(t *testing.T) {
	tests := []struct {
		name, method, head string
		want               int64
		close              bool
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 9, false},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", -1, false},
		{"until close", "GET", "HTTP/1.1 200 OK\r\n\r\n", wire.UntilClose, true},
		{"until close, though kept", "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", wire.UntilClose, true},
		{"head", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 0, false},
		{"head, chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0, false},
		{"head, nothing", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", 0, false},
		{"not modified", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 0, false},
		{"no content", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 0, false},
		{"interim", "GET", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 0, false},
		{"switching", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", 0, false},
		{"connect", "CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", 0, false},
		{"connect refused", "CONNECT", "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\n", 9, false},
		{"closes", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n", 9, true},
		{"1.0 closes", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n", 9, true},
		{"no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 9\r\n\r\n", 9, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r wire.Response
			if err := r.Parse([]byte(tt.head), []byte(tt.method), limits); err != nil {
				t.Fatal(err)
			}
			if r.Length != tt.want || r.Close != tt.close {
				t.Errorf("got length %d, close %v; want %d, %v", r.Length, r.Close, tt.want, tt.close)
			}
		})
	}
}

func TestResponseRefused(t *testing.T) {
	for _, head := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: a\x00\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
		"HTTP/1.1 200 OK\nX: a\r\n\r\n",
		"HTTP/1.1 200 O\x07K\r\n\r\n",
		"HTTP/1.1 2000 OK\r\n\r\n",
		"HTTP/1.1 600 OK\r\n\r\n",
		"HTTP/1.1 099 OK\r\n\r\n",
		"HTTP/1.1  200 OK\r\n\r\n",
		"HTTP/2.0 200 OK\r\n\r\n",
		"HTTP/1.2 200 OK\r\n\r\n",
		"ICY 200 OK\r\n\r\n",
		"\r\nHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 20000) + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\n",
		"\r\n\r\n",
		"",
	} {
		var r wire.Response
		err := r.Parse([]byte(head), []byte("GET"), limits)
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Status != 502 || e.Error() == "" {
			t.Errorf("got %#v, want an Error of 502: %.100q", err, head)
		}
	}
}

func TestKindOf(t *testing.T) {
	tests := map[string]wire.Kind{
		"Host": wire.Host, "hOST": wire.Host, "TE": wire.TE, "content-length": wire.ContentLength,
		"Transfer-Encoding": wire.TransferEncoding, "HTTP2-Settings": wire.HTTP2Settings, "ETag": wire.ETag,
		"Set-Cookie": wire.SetCookie, "Traceparent": wire.Traceparent, "Proxy": wire.Claim, "X-Real-IP": wire.Claim,
		"X-Trivet-Zone": wire.Trivet, "x-trivet": wire.Trivet, "X-Forwarded-For": wire.XForwardedFor,
		"X-Forwarded-Proto": wire.XForwardedProto, "x-forwarded-SSL": wire.XForwarded, "X-Forwarded": wire.XForwarded,
		"Forwarded": wire.Forwarded, "X_Forwarded_For": wire.Underscore, "content_length": wire.Underscore,
		"X-Forwardedfor": wire.Other, "Content-Lengt": wire.Other, "Content\rLength": wire.Other, "X": wire.Other, "": wire.Other,
		"x-trivets": wire.Other, "Accept": wire.Other, "Hos\x00": wire.Other,
	}
	for name, want := range tests {
		if got := wire.KindOf([]byte(name)); got != want {
			t.Errorf("KindOf(%q): got %d, want %d", name, got, want)
		}
	}
}

func TestKindOrder(t *testing.T) {
	tests := []struct {
		kind         wire.Kind
		hop, framing bool
	}{
		{wire.Other, false, false},
		{wire.Hop, true, true},
		{wire.HTTP2Settings, true, true},
		{wire.ContentLength, false, true},
		{wire.Expect, false, true},
		{wire.Claim, false, false},
		{wire.Vary, false, false},
	}
	for _, tt := range tests {
		if tt.kind.HopByHop() != tt.hop || tt.kind.Framing() != tt.framing {
			t.Errorf("kind %d: got %v, %v; want %v, %v", tt.kind, tt.kind.HopByHop(), tt.kind.Framing(), tt.hop, tt.framing)
		}
	}
}

func TestValid(t *testing.T) {
	tests := []struct {
		name      string
		valid     func([]byte) bool
		good, bad []string
	}{
		{"name", wire.ValidName, []string{"a", "X-1.~"}, []string{"", "a b", "a:", "\xe9", "a\x00"}},
		{"value", wire.ValidValue, []string{"", "a\tb \xe9c", "12345678"}, []string{" a", "a\t", "a\rb", "1234567\n", "\x7f"}},
		{"method", wire.ValidMethod, []string{"GET", "x"}, []string{"", "G T", strings.Repeat("A", 33)}},
		{"path", wire.ValidPath, []string{"/", "/a%2f?%"}, []string{"", "*", "a", "/%2", "/#", "/ ", "/\xe9", "http://a/"}},
		{
			"host", wire.ValidHost,
			[]string{"a", "a.b.", "A_b-c:1", "1.2.3.4:65535", "[::1]", "[1:2::8]:80", "[::ffff:1.2.3.4]"},
			[]string{"", ":80", "a:", "a:0", "a:65536", "a..b", ".", "[::1", "[]", "[1]", "[1.2.3.4]", "[::1%25a]", "a,b", "a b", "a@b", "[::1]a", strings.Repeat("a", 255)},
		},
	}
	for _, tt := range tests {
		for _, s := range tt.good {
			if !tt.valid([]byte(s)) {
				t.Errorf("%s %q: got that it is not valid", tt.name, s)
			}
		}
		for _, s := range tt.bad {
			if tt.valid([]byte(s)) {
				t.Errorf("%s %q: got that it is valid", tt.name, s)
			}
		}
	}
}

// TestValueBytes puts every byte at every place of a word, with others around it.
func TestValueBytes(t *testing.T) {
	for c := range 256 {
		want := c == '\t' || c >= ' ' && c != 0x7f
		for at := 1; at < 18; at++ {
			for _, around := range []byte{'~', 0x80, 0xff, '!'} {
				v := bytes.Repeat([]byte{around}, 20)
				v[at] = byte(c)
				if got := wire.ValidValue(v); got != want {
					t.Fatalf("%q: got %v, want %v", v, got, want)
				}
			}
		}
	}
}

func TestAppend(t *testing.T) {
	tests := []struct{ got, want string }{
		{string(wire.AppendStatusLine(nil, 200)), "HTTP/1.1 200 OK\r\n"},
		{string(wire.AppendStatusLine(nil, 299)), "HTTP/1.1 299 \r\n"},
		{string(wire.AppendStatusLine(nil, 1000)), "HTTP/1.1 500 Internal Server Error\r\n"},
		{string(wire.AppendRequestLine(nil, []byte("GET"), []byte("/a"))), "GET /a HTTP/1.1\r\n"},
		{string(wire.AppendLength(nil, 1234567890123)), "Content-Length: 1234567890123\r\n"},
		{string(wire.AppendChunked(nil)), "Transfer-Encoding: chunked\r\n"},
		{string(wire.AppendField(nil, []byte("A"), []byte("b"))), "A: b\r\n"},
		{string(wire.AppendChunkHead(nil, 31)), "1f\r\n"},
		{string(wire.AppendTrailer(nil, nil)), wire.LastChunk},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

// TestChunksSkip takes data past the decoder, as a splice does.
func TestChunksSkip(t *testing.T) {
	var c wire.Chunks
	if _, _, err := c.Next([]byte("a\r\n")); err != nil || c.Left() != 10 {
		t.Fatalf("got %d bytes left, %v; want 10", c.Left(), err)
	}
	c.Skip(4)
	data, n, err := c.Next([]byte("567890\r\n0\r\n\r\n"))
	if string(data) != "567890" || n != 6 || err != nil || c.Left() != 0 {
		t.Fatalf("got %q, %d, %v", data, n, err)
	}
	if _, n, err = c.Next([]byte("\r\n0\r\n\r\nX")); n != 7 || err != nil || !c.Done() {
		t.Errorf("got %d, %v, done %v", n, err, c.Done())
	}
	c.Reset()
	if c.Done() || c.Left() != 0 {
		t.Error("got that it is done after Reset")
	}
}

func TestAllocations(t *testing.T) {
	var (
		r      wire.Request
		p      wire.Response
		c      wire.Chunks
		buf    = make([]byte, 0, 4096)
		heads  = [][]byte{[]byte(tiny), []byte(browser), []byte("GET http://a?b HTTP/1.1\r\nHost: a\r\nConnection: x\r\nX: y\r\n\r\n")}
		reply  = []byte(answer)
		method = []byte("GET")
		body   = []byte("5;a=b\r\nhello\r\n0\r\nX-A: b\r\n\r\n")
	)
	turn := func() {
		for _, head := range heads {
			must(t, r.Parse(head, limits))
		}
		must(t, p.Parse(reply, method, limits))
		buf = wire.AppendStatusLine(wire.AppendRequestLine(buf[:0], method, r.Path), p.Status)
		buf = wire.AppendEnd(wire.AppendLength(wire.AppendField(buf, p.Fields[0].Name, p.Fields[0].Value), p.Length))
		c.Reset()
		for b := body; !c.Done(); {
			_, n, err := c.Next(b)
			must(t, err)
			b = b[n:]
		}
	}
	turn()
	if n := testing.AllocsPerRun(100, turn); n > 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLimits wants that what reaches a limit passes, and that one more does not.
func TestLimits(t *testing.T) {
	const head = "\r\nGET /abc HTTP/1.1\r\nHost: a\r\nX-Long: 0123\r\nY: z\r\n\r\n"
	exact := wire.Limits{Target: 4, Field: len("X-Long: 0123"), Head: len(head) - 2, Count: 3}
	var r wire.Request
	if err := r.Parse([]byte(head), &exact); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		want   int
		limits wire.Limits
	}{
		{414, wire.Limits{Target: exact.Target - 1}},
		{431, wire.Limits{Field: exact.Field - 1}},
		{431, wire.Limits{Head: exact.Head - 1}},
		{431, wire.Limits{Count: exact.Count - 1}},
	}
	for _, tt := range tests {
		err := r.Parse([]byte(head), &tt.limits)
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Status != tt.want {
			t.Errorf("%+v: got %v, want an Error of %d", tt.limits, err, tt.want)
		}
	}
}

func TestHeadEnd(t *testing.T) {
	got, err := wire.HeadEnd([]byte(tiny+tiny), 0)
	if got != len(tiny) || err != nil {
		t.Errorf("got %d, %v; want %d", got, err, len(tiny))
	}
	for n := range len(tiny) {
		if got, err := wire.HeadEnd([]byte(tiny[:n]), 0); got != 0 || err != nil {
			t.Errorf("of %d bytes: got %d, %v; want 0", n, got, err)
		}
	}
	if _, err := wire.HeadEnd(bytes.Repeat([]byte("\r\n"), 5), 0); err == nil {
		t.Error("five empty lines: got no error")
	}
}
