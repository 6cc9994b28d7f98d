package h3

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"trivet/proxy/wire"
)

// stand is a server on loopback, and a client of quic-go's.
type stand struct {
	t       testing.TB
	server  *Server
	address string
	client  *http3.Transport
	drain   context.CancelFunc
	served  chan error
}

func serve(t testing.TB, cfg Config) *stand {
	t.Helper()
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	if cfg.TLS == nil {
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, drain := context.WithCancel(context.Background())
	s := &stand{t: t, server: New(cfg), address: c.LocalAddr().String(), drain: drain, served: make(chan error, 1)}
	s.client = &http3.Transport{TLSClientConfig: clientTLS(), QUICConfig: &quic.Config{}}
	go func() { s.served <- s.server.Serve(ctx, c) }()
	t.Cleanup(func() {
		_ = s.client.Close()
		drain()
		if s.served != nil {
			s.end()
		}
		_ = c.Close()
	})
	return s
}

// end waits for Serve to return.
func (s *stand) end() {
	s.t.Helper()
	select {
	case err := <-s.served:
		if err != nil {
			s.t.Errorf("Serve: %v", err)
		}
	case <-time.After(20 * time.Second):
		s.t.Error("Serve did not end within 20 s")
	}
	s.served = nil
}

func clientTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}
}

func certificate(t testing.TB) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.b"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (s *stand) url(path string) string { return "https://" + s.address + path }

func (s *stand) do(r *http.Request) (*http.Response, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	s.t.Cleanup(cancel)
	a, err := s.client.RoundTrip(r.WithContext(ctx))
	if err != nil {
		s.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer func() { _ = a.Body.Close() }()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		s.t.Fatalf("%s %s: read: %v", r.Method, r.URL, err)
	}
	return a, string(b)
}

func request(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func field(name, value string) wire.Field {
	return wire.Field{Name: []byte(name), Value: []byte(value), Kind: wire.KindOf([]byte(name))}
}

// answer is a whole one.
func answer(st *Stream, status int, fields []wire.Field, body string) error {
	if err := st.Head(status, fields, int64(len(body))); err != nil {
		return err
	}
	if _, err := st.Write([]byte(body)); err != nil {
		return err
	}
	return st.End(nil)
}

func random(t testing.TB, n int) []byte {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

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

func TestSlowBody(t *testing.T) {
	got := make(chan error, 1)
	s := serve(t, Config{Still: 50 * time.Millisecond, Handle: func(st *Stream) {
		_, err := io.ReadAll(st)
		got <- err
		_ = answer(st, 408, nil, "")
	}})
	a, _ := s.do(request(t, "POST", s.url("/"), neverEnds{t.Context()}))
	if err := <-got; !errors.Is(err, ErrStill) || a.StatusCode != 408 {
		t.Errorf("got %v, %d; want %v, 408", err, a.StatusCode, ErrStill)
	}
}

func TestManyAtATime(t *testing.T) {
	s := serve(t, Config{Handle: func(st *Stream) { _ = answer(st, 200, nil, string(st.Request().Path)) }})
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			path := fmt.Sprintf("/%d", i)
			a, err := s.client.RoundTrip(request(t, "GET", s.url(path), nil))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = a.Body.Close() }()
			if b, err := io.ReadAll(a.Body); err != nil || string(b) != path {
				t.Errorf("got %q, %v; want %q", b, err, path)
			}
		})
	}
	all.Wait()
	_ = s.client.Close()
	until(t, "all is closed", func() bool {
		connections, requests := s.server.Open()
		return connections == 0 && requests == 0
	})
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !f(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestDrain(t *testing.T) {
	begun, goOn := make(chan bool), make(chan bool)
	s := serve(t, Config{Handle: func(st *Stream) {
		if string(st.Request().Path) == "/slow" {
			close(begun)
			<-goOn
		}
		_ = answer(st, 200, nil, "whole")
	}})
	got := make(chan string, 1)
	go func() {
		_, b := s.do(request(t, "GET", s.url("/slow"), nil))
		got <- b
	}()
	<-begun
	s.drain()
	until(t, "new connections are refused", func() bool {
		other := &http3.Transport{TLSClientConfig: clientTLS(), QUICConfig: &quic.Config{HandshakeIdleTimeout: 200 * time.Millisecond}}
		defer func() { _ = other.Close() }()
		_, err := other.RoundTrip(request(t, "GET", s.url("/"), nil))
		return err != nil
	})
	close(goOn)
	if b := <-got; b != "whole" {
		t.Errorf("the request that was being answered got %q, want whole", b)
	}
	s.end()
}

func TestDrainGivesUp(t *testing.T) {
	begun := make(chan bool)
	s := serve(t, Config{Grace: 300 * time.Millisecond, Handle: func(st *Stream) {
		gone := make(chan bool)
		st.OnGone(func() { close(gone) })
		close(begun)
		<-gone
	}})
	failed := make(chan error, 1)
	go func() {
		_, err := s.client.RoundTrip(request(t, "GET", s.url("/"), nil))
		failed <- err
	}()
	<-begun
	s.drain()
	s.end()
	if err := <-failed; err == nil {
		t.Error("a request beyond the grace got an answer")
	}
}

func TestDrainOfIdleConnectionsIsQuick(t *testing.T) {
	s := serve(t, Config{Handle: func(st *Stream) { _ = answer(st, 200, nil, "x") }})
	s.do(request(t, "GET", s.url("/"), nil))
	start := time.Now()
	s.drain()
	s.end()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v, want about %v", took, goodbye)
	}
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

func TestRefused(t *testing.T) {
	var mu sync.Mutex
	var told []int
	s := serve(t, Config{
		Limits:  wire.Limits{Head: 4000, Count: 20, Target: 100, Field: 500},
		Refused: func(status int) { mu.Lock(); told = append(told, status); mu.Unlock() },
		Handle:  func(st *Stream) { _ = answer(st, 200, nil, "") },
	})
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		want   int
	}{
		{"ordinary", func(*http.Request) {}, 200},
		{"long target", func(r *http.Request) { r.URL.Path = "/" + strings.Repeat("a", 200) }, 414},
		{"long field", func(r *http.Request) { r.Header.Set("X", strings.Repeat("a", 600)) }, 431},
		{"long head", func(r *http.Request) {
			for i := range 12 {
				r.Header.Set(fmt.Sprint("X-", i), strings.Repeat("a", 400))
			}
		}, 431},
		{"many fields", func(r *http.Request) {
			for i := range 30 {
				r.Header.Set(fmt.Sprint("X-", i), "")
			}
		}, 431},
		{"host", func(r *http.Request) { r.Host = "a:b:c" }, 400},
	} {
		r := request(t, "GET", s.url("/"), nil)
		c.change(r)
		a, err := s.client.RoundTrip(r)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		_ = a.Body.Close()
		if a.StatusCode != c.want {
			t.Errorf("%s: got %d, want %d", c.name, a.StatusCode, c.want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	// quic-go itself refuses what is beyond Limits.Head.
	if want := []int{414, 431, 431, 400}; !slices.Equal(told, want) {
		t.Errorf("Refused was told of %v, want %v", told, want)
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	s := serve(t, Config{Idle: 200 * time.Millisecond, Handle: func(st *Stream) { _ = answer(st, 200, nil, "") }})
	c, err := quic.DialAddr(t.Context(), s.address, clientTLS(), &quic.Config{KeepAlivePeriod: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseWithError(0, "") }()
	str, err := c.OpenStream() // and half a head on it
	if err != nil {
		t.Fatal(err)
	}
	_, _ = str.Write([]byte{1, 50, 0, 0})
	select {
	case <-c.Context().Done():
	case <-time.After(10 * time.Second):
		t.Error("a connection with half a head lives on")
	}
}

func TestConnectionLimitAndRetry(t *testing.T) {
	s := serve(t, Config{Connections: 2, Unproven: 1, Handle: func(st *Stream) { _ = answer(st, 200, nil, "") }})
	dial := func() (*quic.Conn, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return quic.DialAddr(ctx, s.address, clientTLS(), nil)
	}
	for i := range 2 { // at least the second has to prove its address
		c, err := dial()
		if err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
		defer func() { _ = c.CloseWithError(0, "") }()
	}
	if c, err := dial(); err == nil {
		_ = c.CloseWithError(0, "")
		t.Error("a third connection was let in, want two at most")
	}
}

func TestResetsWithoutEndAreCut(t *testing.T) {
	begun := make(chan bool, 1)
	s := serve(t, Config{Handle: func(st *Stream) {
		gone := make(chan bool)
		st.OnGone(func() { close(gone) })
		begun <- true
		<-gone
	}})
	c, err := quic.DialAddr(t.Context(), s.address, clientTLS(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseWithError(0, "") }()
	h := s.client.NewClientConn(c)
	for i := range 2 * resets {
		st, err := h.OpenRequestStream(c.Context())
		if err == nil {
			err = st.SendRequestHeader(request(t, "GET", "https://a.b/", nil))
		}
		if err != nil {
			var e *quic.ApplicationError
			if !errors.As(context.Cause(c.Context()), &e) || e.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad) {
				t.Errorf("got %v after %d requests, want %v", context.Cause(c.Context()), i, http3.ErrCodeExcessiveLoad)
			}
			return
		}
		_ = st.Close()
		select {
		case <-begun:
		case <-c.Context().Done():
		}
		st.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		st.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	}
	t.Errorf("%d resets, and the connection lives on", 2*resets)
}

// silent is a socket of a process that dies without a word.
type silent struct {
	net.PacketConn
	dead atomic.Bool
}

func (s *silent) WriteTo(p []byte, to net.Addr) (int, error) {
	if s.dead.Load() {
		return len(p), nil
	}
	return s.PacketConn.WriteTo(p, to)
}

func TestSuccessorEndsConnectionsOfTheDead(t *testing.T) {
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	cfg := Config{
		TLS: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}, Secret: []byte("secret"), Grace: time.Millisecond,
		Handle: func(st *Stream) { _ = answer(st, 200, nil, "") },
	}
	start := func(address string) (*silent, func()) {
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		s := &silent{PacketConn: c}
		ctx, stop := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- New(cfg).Serve(ctx, s) }()
		return s, func() {
			stop()
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			_ = c.Close()
		}
	}
	first, stop := start("127.0.0.1:0")
	address := first.LocalAddr().String()
	c, err := quic.DialAddr(t.Context(), address, clientTLS(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseWithError(0, "") }()
	first.dead.Store(true)
	stop()
	_, stop = start(address)
	defer stop()
	st, err := c.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = st.Write(make([]byte, 1000)) // a small packet is not answered, lest resets answer resets
	select {
	case <-c.Context().Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the connection lives on after 10 s")
	}
	var reset *quic.StatelessResetError
	if err := context.Cause(c.Context()); !errors.As(err, &reset) {
		t.Errorf("got %v, want a stateless reset", err)
	}
}

func TestTicketKeysAreThoseOfTheTime(t *testing.T) {
	cfg := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	s := serve(t, Config{TLS: cfg, Handle: func(st *Stream) { _ = answer(st, 200, nil, "") }})
	cache := tls.NewLRUClientSessionCache(1)
	resumed := func() bool {
		client := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "a.b", ClientSessionCache: cache}}
		defer func() { _ = client.Close() }()
		a, err := client.RoundTrip(request(t, "GET", s.url("/"), nil))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Body.Close() }()
		return a.TLS.DidResume
	}
	cfg.SetSessionTicketKeys([][32]byte{{1}})
	if resumed() {
		t.Error("the first connection was resumed")
	}
	if !resumed() {
		t.Error("the second connection was not resumed")
	}
	cfg.SetSessionTicketKeys([][32]byte{{2}, {1}})
	if !resumed() {
		t.Error("after a rotation: not resumed")
	}
	cfg.SetSessionTicketKeys([][32]byte{{3}})
	if resumed() {
		t.Error("without the key: resumed")
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
