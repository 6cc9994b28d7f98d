package h3

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quic-go/quic-go"

	"trivet/proxy/wire"
)

func TestGet(t *testing.T) {
	s := serve(t, Config{Handle: func(st *Stream) {
		r := st.Request()
		var all []string
		for _, f := range r.Fields {
			all = append(all, string(f.Name)+"="+string(f.Value))
		}
		slices.Sort(all)
		n, err := st.Read(make([]byte, 1))
		_ = answer(st, 200, []wire.Field{field("content-type", "text/x"), field("X-Two", "a"), field("x-two", "b"), field("connection", "close")},
			fmt.Sprintf("%s %s %s %d.%d length %d, read %d %v, secure %v, peer %v\n%s", r.Method, r.Host, r.Path, r.Major, r.Minor,
				r.Length, n, err, st.TLS().Version == tls.VersionTLS13, st.Peer().Addr(), strings.Join(all, "\n")))
	}})
	r := request(t, "GET", s.url("/path?q=1&r=%20"), nil)
	r.Host = "www.foobar.com"
	r.Header = http.Header{"X-A": {"1", "2"}, "Cookie": {"a=b", "c=d"}, "User-Agent": {"u"}, "Accept-Encoding": {"x"}}
	a, got := s.do(r)
	want := "GET www.foobar.com /path?q=1&r=%20 3.0 length 0, read 0 EOF, secure true, peer 127.0.0.1\n" +
		"accept-encoding=x\ncookie=a=b; c=d\nuser-agent=u\nx-a=1\nx-a=2"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	wantHead := http.Header{"Content-Type": {"text/x"}, "X-Two": {"a", "b"}, "Content-Length": {fmt.Sprint(len(want))}}
	if diff := cmp.Diff(wantHead, a.Header); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestAnswers(t *testing.T) {
	body := random(t, 3<<20)
	for _, c := range []struct {
		name   string
		method string
		handle func(*Stream)
		status int
		length int64
		body   []byte
	}{
		{"no body", "GET", func(st *Stream) { _ = answer(st, 404, nil, "") }, 404, 0, nil},
		{"no content", "GET", func(st *Stream) { _ = st.Head(204, nil, 0); _ = st.End(nil) }, 204, 0, nil},
		{"not modified", "GET", func(st *Stream) { _ = st.Head(304, nil, 0); _ = st.End(nil) }, 304, 0, nil},
		{"of a HEAD", "HEAD", func(st *Stream) { _ = st.Head(200, nil, 12345); _ = st.End(nil) }, 200, 12345, nil},
		{"of a HEAD, by field", "HEAD", func(st *Stream) {
			_ = st.Head(200, []wire.Field{field("content-length", "77")}, 0)
			_ = st.End(nil)
		}, 200, 77, nil},
		{"of a HEAD, unknown", "HEAD", func(st *Stream) { _ = st.Head(200, nil, -1); _, _ = st.Write([]byte("x")); _ = st.End(nil) }, 200, -1, nil},
		{"big, length known", "GET", func(st *Stream) { _ = st.Head(200, nil, int64(len(body))); _, _ = st.Write(body); _ = st.End(nil) }, 200, int64(len(body)), body},
		{"big, length unknown", "GET", func(st *Stream) {
			_ = st.Head(200, nil, -1)
			_, _ = st.Write(body[:9])
			_ = st.Flush()
			_, _ = st.Write(body[9:])
			_ = st.End(nil)
		}, 200, -1, body},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, Config{Handle: c.handle})
			a, got := s.do(request(t, c.method, s.url("/"), nil))
			if c.length == 0 && c.method == "GET" && a.StatusCode != 404 {
				a.ContentLength = 0 // quic-go's client does not say
			}
			if a.StatusCode != c.status || a.ContentLength != c.length || got != string(c.body) {
				t.Errorf("got %d, length %d, %d bytes; want %d, %d, %d", a.StatusCode, a.ContentLength, len(got), c.status, c.length, len(c.body))
			}
		})
	}
}

func TestBodyAndTrailersBothWays(t *testing.T) {
	body := random(t, 5<<20)
	s := serve(t, Config{Handle: func(st *Stream) {
		_ = st.Head(200, nil, -1)
		_ = st.Flush()
		p := make([]byte, 10000)
		for {
			n, err := st.Read(p)
			_, _ = st.Write(p[:n])
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Errorf("read: %v", err)
				st.Abort()
				return
			}
		}
		got := fmt.Sprintf("%s=%s", st.Trailer()[0].Name, st.Trailer()[0].Value)
		_ = st.End([]wire.Field{field("x-back", got), field("grpc-status", "0")})
	}})
	for _, length := range []int64{-1, int64(len(body))} {
		r := request(t, "POST", s.url("/"), struct{ io.Reader }{bytes.NewReader(body)})
		r.ContentLength = length
		r.Trailer = http.Header{"X-Sum": {"42"}}
		a, got := s.do(r)
		if got != string(body) {
			t.Errorf("length %d: got %d bytes back, want the %d sent", length, len(got), len(body))
		}
		want := http.Header{"X-Back": {"x-sum=42"}, "Grpc-Status": {"0"}}
		if diff := cmp.Diff(want, a.Trailer); diff != "" {
			t.Errorf("length %d: trailers (-want +got):\n%s", length, diff)
		}
	}
}

func TestLengthOfBody(t *testing.T) {
	s := serve(t, Config{Handle: func(st *Stream) {
		length := st.Request().Length
		b, err := io.ReadAll(st)
		_ = answer(st, 200, nil, fmt.Sprintf("%d %s %v", length, b, err))
	}})
	for _, c := range []struct {
		method, body string
		length       int64
		want         string
	}{
		{"POST", "abc", 3, "3 abc <nil>"},
		{"POST", "abc", -1, "-1 abc <nil>"},
		{"GET", "abc", -1, "-1 abc <nil>"},
		{"DELETE", "", 0, "0  <nil>"},
		{"GET", "", 0, "0  <nil>"},
	} {
		var body io.Reader
		if c.body != "" {
			body = struct{ io.Reader }{strings.NewReader(c.body)}
		}
		r := request(t, c.method, s.url("/"), body)
		r.ContentLength = c.length
		if _, got := s.do(r); got != c.want {
			t.Errorf("%s %q: got %q, want %q", c.method, c.body, got, c.want)
		}
	}
}

func TestInterimAnswers(t *testing.T) {
	s := serve(t, Config{Handle: func(st *Stream) {
		_ = st.Head(103, []wire.Field{field("link", "</x>")}, 0)
		_, _ = io.ReadAll(st) // sends 100 Continue
		_ = answer(st, 200, nil, "done")
	}})
	r := request(t, "POST", s.url("/"), strings.NewReader("abc"))
	r.Header.Set("Expect", "100-continue")
	var got []string
	a, body := s.do(r.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, h))
			return nil
		},
	})))
	if want := []string{"103 map[Link:[</x>]]", "100 map[]"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if body != "done" || a.Header.Get("Link") != "" {
		t.Errorf("got %q with %v, want done without the interim fields", body, a.Header)
	}
}

func TestBrokenAnswers(t *testing.T) {
	for name, handle := range map[string]func(*Stream){
		"aborted":   func(st *Stream) { _ = st.Head(200, nil, -1); _, _ = st.Write([]byte("x")); _ = st.Flush(); st.Abort() },
		"not ended": func(st *Stream) { _ = st.Head(200, nil, -1); _, _ = st.Write([]byte("x")) },
		"too short": func(st *Stream) {
			_ = st.Head(200, nil, 5)
			_, _ = st.Write([]byte("x"))
			if err := st.End(nil); !errors.Is(err, ErrBody) {
				t.Errorf("too short: got %v, want %v", err, ErrBody)
			}
		},
		"no answer": func(*Stream) {},
	} {
		s := serve(t, Config{Handle: handle})
		a, err := s.client.RoundTrip(request(t, "GET", s.url("/"), nil))
		if err == nil {
			_, err = io.ReadAll(a.Body)
			_ = a.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: the client took it for whole", name)
		}
	}
}

func TestWrongOrder(t *testing.T) {
	s := serve(t, Config{Handle: func(st *Stream) {
		if _, err := st.Write([]byte("x")); !errors.Is(err, ErrState) {
			t.Errorf("Write before Head: got %v, want %v", err, ErrState)
		}
		if err := st.Head(101, nil, 0); !errors.Is(err, ErrState) {
			t.Errorf("101: got %v, want %v", err, ErrState)
		}
		_ = st.Head(200, nil, 2)
		if err := st.Head(200, nil, 2); !errors.Is(err, ErrState) {
			t.Errorf("second Head: got %v, want %v", err, ErrState)
		}
		if _, err := st.Write([]byte("xyz")); !errors.Is(err, ErrBody) {
			t.Errorf("too much: got %v, want %v", err, ErrBody)
		}
		_, _ = st.Write([]byte("xy"))
		_ = st.End(nil)
		if _, err := st.Read(make([]byte, 1)); err == nil {
			t.Error("Read after End succeeded")
		}
	}})
	if _, got := s.do(request(t, "GET", s.url("/"), nil)); got != "xy" {
		t.Errorf("got %q, want xy", got)
	}
}

func TestGone(t *testing.T) {
	begun, told, read := make(chan bool), make(chan bool), make(chan error, 1)
	s := serve(t, Config{Handle: func(st *Stream) {
		gone := make(chan bool)
		st.OnGone(func() { close(gone) })
		close(begun)
		_, err := io.ReadAll(st)
		read <- err
		<-gone
		close(told)
	}})
	ctx, leave := context.WithCancel(t.Context())
	r := request(t, "POST", s.url("/"), neverEnds{ctx}).WithContext(ctx)
	go func() {
		<-begun
		leave()
	}()
	if _, err := s.client.RoundTrip(r); err == nil {
		t.Error("a request that was given up got an answer")
	}
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Fatal("OnGone was not called")
	}
	if err := <-read; err == nil {
		t.Error("reading the body of a request that was given up succeeded")
	}
}

type neverEnds struct{ ctx context.Context }

func (n neverEnds) Read([]byte) (int, error) { <-n.ctx.Done(); return 0, n.ctx.Err() }

func TestGoneIsNotCalledAfterAWholeAnswer(t *testing.T) {
	s := serve(t, Config{Handle: func(st *Stream) {
		st.OnGone(func() { t.Error("OnGone was called") })
		_ = answer(st, 200, nil, "x")
	}})
	for range 20 {
		s.do(request(t, "GET", s.url("/"), nil))
	}
	_ = s.client.Close()
	s.drain()
	s.end()
}

func TestExtendedConnect(t *testing.T) {
	s := serve(t, Config{Handle: func(st *Stream) {
		r := st.Request()
		if got := fmt.Sprintf("%s %s %s %s %d", r.Method, r.Protocol, r.Host, r.Path, r.Length); got != "CONNECT websocket a.b /chat -1" {
			t.Errorf("got %s", got)
		}
		_ = st.Head(200, []wire.Field{field("sec-websocket-protocol", "chat")}, -1)
		_ = st.Flush()
		p := make([]byte, 100)
		for {
			n, err := st.Read(p)
			if err != nil {
				break
			}
			_, _ = st.Write(bytes.ToUpper(p[:n]))
			_ = st.Flush()
		}
		_ = st.End(nil)
	}})
	c, err := quic.DialAddr(t.Context(), s.address, clientTLS(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseWithError(0, "") }()
	h := s.client.NewClientConn(c)
	select {
	case <-h.ReceivedSettings():
	case <-time.After(10 * time.Second):
		t.Fatal("no settings within 10 s")
	}
	if !h.Settings().EnableExtendedConnect {
		t.Fatal("the server does not offer extended CONNECT")
	}
	st, err := h.OpenRequestStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := request(t, "CONNECT", "https://a.b/chat", nil)
	r.Proto = "websocket"
	if err := st.SendRequestHeader(r); err != nil {
		t.Fatal(err)
	}
	a, err := st.ReadResponse()
	if err != nil || a.StatusCode != 200 || a.Header.Get("Sec-Websocket-Protocol") != "chat" {
		t.Fatalf("got %+v, %v", a, err)
	}
	for _, word := range []string{"one", "two"} {
		_, _ = st.Write([]byte(word))
		p := make([]byte, 3)
		if _, err := io.ReadFull(st, p); err != nil || string(p) != strings.ToUpper(word) {
			t.Fatalf("got %q, %v; want %q", p, err, strings.ToUpper(word))
		}
	}
	_ = st.Close()
	if rest, err := io.ReadAll(st); err != nil || len(rest) != 0 {
		t.Errorf("after the end: got %q, %v", rest, err)
	}
}

func TestAltSvc(t *testing.T) {
	if got, want := AltSvc(443, 24*time.Hour), `h3=":443"; ma=86400`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func BenchmarkGet(b *testing.B) {
	s := serve(b, Config{Handle: func(st *Stream) { _ = answer(st, 200, nil, "x") }})
	r := request(b, "GET", s.url("/"), nil)
	b.ReportAllocs()
	for b.Loop() {
		a, err := s.client.RoundTrip(r)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, a.Body)
		_ = a.Body.Close()
	}
}
