package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"trivet/proxy"
)

// ok answers everything.
func ok(x *proxy.Exchange) { x.Answer(200, nil, []byte("ok")) }

// by is a server with a handler of its own.
func by(h func(*proxy.Exchange)) stand { return stand{config: proxy.Config{Handler: h}} }

func TestPipelining(t *testing.T) {
	s := startServer(t, by(func(x *proxy.Exchange) { x.Answer(200, nil, x.Request.Path) }))
	c := dial(t, s.address)
	var all strings.Builder
	for i := range 200 {
		_, _ = fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", i)
	}
	go c.send(all.String())
	for i := range 200 {
		if resp, got := c.answer("POST"); resp.StatusCode != 200 || got != fmt.Sprintf("/%d", i) {
			t.Fatalf("answer %d: got %d %q", i, resp.StatusCode, got)
		}
	}
}

func TestExpect(t *testing.T) {
	s := startServer(t, by(func(x *proxy.Exchange) {
		if string(x.Request.Path) == "/refuse" {
			x.Answer(403, nil, nil)
			return
		}
		b, err := io.ReadAll(readerOf(x))
		x.Answer(200, nil, fmt.Appendf(nil, "%s %v", b, err))
	}))
	c := dial(t, s.address)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	if resp, _ := c.answer("POST"); resp.StatusCode != 100 {
		t.Fatalf("got %d, want 100", resp.StatusCode)
	}
	c.send("body")
	if resp, got := c.answer("POST"); resp.StatusCode != 200 || got != "body <nil>" {
		t.Errorf("got %d %q, want 200 body", resp.StatusCode, got)
	}
	c.send("POST /refuse HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	if resp, _ := c.answer("POST"); resp.StatusCode != 403 || !resp.Close {
		t.Errorf("got %d, close %v, want 403 and a close", resp.StatusCode, resp.Close)
	}
	if !c.ended() {
		t.Error("the connection goes on, though a body may come or not")
	}
}

// readerOf reads x's body.
func readerOf(x *proxy.Exchange) io.Reader { return readFunc(x.Read) }

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestHTTP10(t *testing.T) {
	s := startServer(t, by(func(x *proxy.Exchange) {
		if string(x.Request.Path) == "/stream" {
			_ = x.Start(200, nil, -1)
			_, _ = x.Write([]byte("one "))
			_ = x.Flush()
			_, _ = x.Write([]byte("two"))
			_ = x.End(nil)
			return
		}
		ok(x)
	}))
	tests := []struct {
		send, connection, body string
		ends                   bool
	}{
		{"GET / HTTP/1.0\r\n\r\n", "close", "ok", true},
		{"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive", "ok", false},
		{"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "close", "one two", true},
		{"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n", "", "one two", false},
		{"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close", "ok", true},
	}
	for _, tt := range tests {
		c := dial(t, s.address)
		c.send(tt.send)
		resp, body := c.answer("GET")
		connection := resp.Header.Get("Connection")
		if resp.Close && connection == "" {
			connection = "close"
		}
		if body != tt.body || connection != tt.connection {
			t.Errorf("%q: got %q, Connection %q, want %q, %q", tt.send, body, connection, tt.body, tt.connection)
		}
		if tt.ends && !c.ended() {
			t.Errorf("%q: the connection goes on", tt.send)
		}
		if !tt.ends {
			c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			c.answer("GET")
		}
	}
}

func TestBodiless(t *testing.T) {
	s := startServer(t, by(func(x *proxy.Exchange) {
		switch string(x.Request.Path) {
		case "/204":
			x.Answer(204, nil, []byte("no"))
		case "/304":
			x.Answer(304, nil, nil)
		default:
			ok(x)
		}
	}))
	c := dial(t, s.address)
	for _, tt := range []struct{ method, path, length string }{{"HEAD", "/", "2"}, {"GET", "/204", ""}, {"GET", "/304", ""}, {"GET", "/", "2"}} {
		c.send(tt.method + " " + tt.path + " HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, _ := c.answer(tt.method)
		if got := resp.Header.Get("Content-Length"); got != tt.length || len(resp.TransferEncoding) > 0 {
			t.Errorf("%s %s: got Content-Length %q, %v, want %q", tt.method, tt.path, got, resp.TransferEncoding, tt.length)
		}
	}
}

func times(head, still time.Duration, rate int) proxy.Times {
	return proxy.Times{Head: head, Still: still, Idle: time.Minute, Rate: rate}
}

func TestSlowHead(t *testing.T) {
	st := by(ok)
	st.config.Times = times(200*time.Millisecond, time.Second, 0)
	s := startServer(t, st)
	c := dial(t, s.address)
	c.send("GET / HTTP/1.1\r\nHo")
	if resp, _ := c.answer("GET"); resp.StatusCode != 408 || !c.ended() {
		t.Errorf("got %d, want 408 and the end", resp.StatusCode)
	}
	if r := s.done.last(t, 1); r.status != 408 {
		t.Errorf("recorded %d, want 408", r.status)
	}
}

func TestSlowBody(t *testing.T) {
	var seen atomic.Int64
	st := stand{targets: targetsOf(well(t, &seen))}
	st.config.Times = times(time.Second, 200*time.Millisecond, 0)
	s := startServer(t, st)
	for _, length := range []string{"Content-Length: 100", "Content-Length: 100000", "Transfer-Encoding: chunked"} {
		c := dial(t, s.address)
		c.send("POST / HTTP/1.1\r\nHost: a\r\n" + length + "\r\n\r\n4")
		if resp, _ := c.answer("POST"); resp.StatusCode != 408 || !c.ended() {
			t.Errorf("%s: got %d, want 408 and the end", length, resp.StatusCode)
		}
	}
}

func TestSlowReader(t *testing.T) {
	st := stand{targets: targetsOf(web(t, "a", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", "100000000")
		}
		piece := make([]byte, 100_000)
		for range 1000 {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}))}
	st.config.Times = times(time.Second, 200*time.Millisecond, 0)
	s := startServer(t, st)
	for i, path := range []string{"/known", "/unknown"} {
		c := dial(t, s.address)
		c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if r := s.done.last(t, i+1); !r.broken || r.status != 200 {
			t.Errorf("%s: got %+v, want a broken 200", path, r)
		}
		if n := s.pool.InFlight(); n != 0 {
			t.Errorf("%s: %d in flight", path, n)
		}
	}
}

func TestTooLarge(t *testing.T) {
	var seen atomic.Int64
	st := stand{targets: targetsOf(well(t, &seen))}
	st.config.MaxBody = 50_000
	s := startServer(t, st)
	c := dial(t, s.address)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
	if resp, _ := c.answer("POST"); resp.StatusCode != 413 {
		t.Errorf("declared: got %d, want 413", resp.StatusCode)
	}
	c = dial(t, s.address)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nea60\r\n" + strings.Repeat("x", 60000))
	if resp, _ := c.answer("POST"); resp.StatusCode != 413 {
		t.Errorf("in chunks: got %d, want 413", resp.StatusCode)
	}
}

// TestEarlyAnswer: a target that answers before it has the whole request.
func TestEarlyAnswer(t *testing.T) {
	target := raw(t, "a", func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 413 No\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong")
		}
	})
	s := startServer(t, stand{targets: targetsOf(target)})
	c := dial(t, s.address)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome")
	if resp, body := c.answer("POST"); resp.StatusCode != 413 || body != "long" || !resp.Close {
		t.Errorf("got %d %q, close %v, want the target's 413 and a close", resp.StatusCode, body, resp.Close)
	}
	until(t, "nothing in flight", func() bool { return s.pool.InFlight() == 0 })
}

// TestDuplex: answer and request flow side by side.
func TestDuplex(t *testing.T) {
	target := raw(t, "a", func(c net.Conn, r *bufio.Reader) {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		b := make([]byte, 100)
		for {
			n, err := q.Body.Read(b)
			if n > 0 {
				_, _ = fmt.Fprintf(c, "%x\r\n%s\r\n", n, b[:n])
			}
			if err != nil {
				_, _ = io.WriteString(c, "0\r\n\r\n")
				return
			}
		}
	})
	s := startServer(t, stand{targets: targetsOf(target)})
	c := dial(t, s.address)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		word := fmt.Sprintf("word %d", i)
		c.send(fmt.Sprintf("%x\r\n%s\r\n", len(word), word))
		got := make([]byte, len(word))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != word {
			t.Fatalf("got %q, %v, want %q", got, err, word)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("rest: %q, %v", rest, err)
	}
}

// TestClientGone: a client that does not wait frees its target.
func TestClientGone(t *testing.T) {
	asked, freed := make(chan struct{}), make(chan struct{})
	silent := raw(t, "silent", func(_ net.Conn, r *bufio.Reader) {
		_ = readRequest(r)
		close(asked)
		_, _ = r.ReadByte()
		close(freed)
	})
	s := startServer(t, stand{targets: targetsOf(silent)})
	c := dial(t, s.address)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /pipelined HTTP/1.1\r\nHost: a\r\n\r\n")
	<-asked
	select {
	case <-freed:
		t.Fatal("what was pipelined was taken for the client's end")
	case <-time.After(600 * time.Millisecond):
	}
	_ = c.Close()
	select {
	case <-freed:
	case <-time.After(10 * time.Second):
		t.Fatal("the target is still waited for")
	}
	if r := s.done.last(t, 1); r.status != proxy.StatusClientGone || !errors.Is(r.err, proxy.ErrClientGone) {
		t.Errorf("got %+v, want 499", r)
	}
}

func TestUpgrade(t *testing.T) {
	echo := raw(t, "echo", func(c net.Conn, r *bufio.Reader) {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nX-A: b\r\n\r\nhello", q.Header.Get("Upgrade"))
		_, _ = io.Copy(c, r)
		_ = c.(*net.TCPConn).CloseWrite()
	})
	st := stand{targets: targetsOf(echo)}
	st.config.Grace, st.config.TunnelGrace = 10*time.Millisecond, time.Minute
	s := startServer(t, st)
	c := dial(t, s.address)
	c.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: anything\r\n\r\nearly")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "anything" || resp.Header.Get("X-A") != "b" {
		t.Fatalf("got %+v, %v, want 101", resp, err)
	}
	want := func(text string) {
		t.Helper()
		got := make([]byte, len(text))
		if _, err := io.ReadFull(c.r, got); err != nil || string(got) != text {
			t.Fatalf("got %q, %v, want %q", got, err, text)
		}
	}
	want("helloearly")
	if n := s.server.Stats().Tunnels; n != 1 {
		t.Errorf("tunnels: got %d, want 1", n)
	}
	go s.stop()
	until(t, "the server drains", func() bool { return !accepts(s.address) })
	c.send("after the drain began")
	want("after the drain began")
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if !c.ended() {
		t.Error("the end was not passed on")
	}
	if r := s.done.last(t, 1); r.status != 101 || r.sent != 31 {
		t.Errorf("got %+v, want 101 and 31 bytes sent", r)
	}
}

func accepts(address string) bool {
	c, err := net.Dial("tcp", address)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// TestTunnelGrace: a tunnel that does not end is ended.
func TestTunnelGrace(t *testing.T) {
	still := raw(t, "still", func(c net.Conn, r *bufio.Reader) {
		_ = readRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		_, _ = r.ReadByte()
	})
	st := stand{targets: targetsOf(still)}
	st.config.Grace, st.config.TunnelGrace = 10*time.Millisecond, 100*time.Millisecond
	s := startServer(t, st)
	c := dial(t, s.address)
	c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
	if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	s.stop()
}

// TestDrain: what is under way is answered, the rest is closed, then Serve returns.
func TestDrain(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	s := startServer(t, by(func(x *proxy.Exchange) {
		if string(x.Request.Path) == "/slow" {
			close(began)
			<-finish
		}
		ok(x)
	}))
	idle, busy := dial(t, s.address), dial(t, s.address)
	idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	idle.answer("GET")
	busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-began
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	if !idle.ended() {
		t.Error("the idle connection was not closed")
	}
	select {
	case <-stopped:
		t.Error("Serve returned while a request was under way")
	default:
	}
	close(finish)
	if resp, body := busy.answer("GET"); body != "ok" || !resp.Close {
		t.Errorf("got %q, close %v, want ok and a close", body, resp.Close)
	}
	<-stopped
}

// TestGrace: what takes too long is cut off.
func TestGrace(t *testing.T) {
	st := stand{targets: targetsOf(raw(t, "a", func(_ net.Conn, r *bufio.Reader) { _ = readRequest(r); _, _ = r.ReadByte() }))}
	st.config.Grace = 50 * time.Millisecond
	s := startServer(t, st)
	c := dial(t, s.address)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	until(t, "the request is with its target", func() bool { return s.pool.InFlight() == 1 })
	s.stop()
}

func TestConnectionLimit(t *testing.T) {
	var refused atomic.Int64
	st := by(ok)
	st.config.Connections, st.config.Refused = 2, func() { refused.Add(1) }
	s := startServer(t, st)
	another := func() bool {
		c, err := net.Dial("tcp", s.address)
		if err != nil {
			return false // it was reset at once
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		_, err = http.ReadResponse(bufio.NewReader(c), nil)
		return err == nil
	}
	asks := func(c *client) bool {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			return false
		}
		_, err := http.ReadResponse(c.r, nil)
		return err == nil
	}
	a, b := dial(t, s.address), dial(t, s.address)
	if !asks(a) || !asks(b) {
		t.Fatal("the first two are not answered")
	}
	if another() || refused.Load() != 1 {
		t.Errorf("a third is answered, or not counted: %d", refused.Load())
	}
	_ = a.Close()
	until(t, "room for another", another)
}

// TestParking: idle connections hold no goroutine, and are answered still.
func TestParking(t *testing.T) {
	s := startServer(t, by(ok))
	before := runtime.NumGoroutine()
	var all []*client
	for range 500 {
		c := dial(t, s.address)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.answer("GET")
		all = append(all, c)
	}
	until(t, "all are parked", func() bool { return s.server.Stats().Active == 0 })
	until(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+1 })
	if n := s.server.Stats().Open; n != 500 {
		t.Errorf("open: got %d, want 500", n)
	}
	for _, c := range all {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, body := c.answer("GET"); body != "ok" {
			t.Fatalf("got %q", body)
		}
	}
	until(t, "all are parked again", func() bool { return s.server.Stats().Active == 0 })
	for _, c := range all[:250] {
		_ = c.Close()
	}
	until(t, "half of them are gone", func() bool { return s.server.Stats().Open == 250 })
	s.stop()
	for _, c := range all[250:] {
		if !c.ended() {
			t.Fatal("a parked connection was not closed")
		}
	}
}

func TestIdleTime(t *testing.T) {
	st := by(ok)
	st.config.Times = proxy.Times{Head: time.Second, Still: time.Second, Idle: 100 * time.Millisecond}
	s := startServer(t, st)
	c := dial(t, s.address)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.answer("GET")
	if !c.ended() {
		t.Error("the idle connection was not closed")
	}
}

// secure is a server and a client's configuration for it.
func secure(t testing.TB, st stand) (*served, *tls.Config) {
	t.Helper()
	srv, ca := selfSigned(t)
	srv.NextProtos = []string{"h2", "http/1.1"}
	st.tls, st.config.HTTP2 = srv, true
	return startServer(t, st), &tls.Config{RootCAs: ca, ServerName: "www.foobar.com"}
}

// TestSecure: both versions over TLS, parked between two requests.
func TestSecure(t *testing.T) {
	var seen atomic.Int64
	s, cfg := secure(t, stand{targets: targetsOf(well(t, &seen))})
	for _, h2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: h2}
		defer tr.CloseIdleConnections()
		for round := range 3 {
			for _, body := range []string{"", "small", strings.Repeat("x", 300_000)} {
				resp, err := (&http.Client{Transport: tr}).Post("https://"+s.address, "text/plain", strings.NewReader(body))
				if err != nil {
					t.Fatalf("h2 %v: %v", h2, err)
				}
				got, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if string(got) != "well" || err != nil || (resp.ProtoMajor == 2) != h2 {
					t.Errorf("h2 %v: got %q, %v by %s", h2, got, err, resp.Proto)
				}
			}
			if round == 0 {
				until(t, "parked", func() bool { return s.server.Stats().Active == 0 })
			}
		}
	}
}

// TestSecureSizes: every length comes whole by TLS, with a client that sends in parts.
func TestSecureSizes(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 1<<16)
	s, cfg := secure(t, stand{targets: targetsOf(web(t, "a", func(w http.ResponseWriter, r *http.Request) {
		var size int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &size)
		if r.URL.RawQuery == "" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		_, _ = io.WriteString(w, text[:size])
	}))})
	for _, h2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: h2}
		defer tr.CloseIdleConnections()
		for _, size := range []int{0, 1, 4000, 16_000, 17_000, 65_536, 70_000, 1_000_000} {
			for _, query := range []string{"", "?chunked"} {
				resp, err := (&http.Client{Transport: tr}).Get(fmt.Sprintf("https://%s/%d%s", s.address, size, query))
				if err != nil {
					t.Fatalf("h2 %v: %v", h2, err)
				}
				got, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if string(got) != text[:size] || err != nil {
					t.Errorf("h2 %v, %d%s: got %d bytes, %v", h2, size, query, len(got), err)
				}
			}
		}
	}
}

// TestSecureDrain: HTTP/2 requests under way are answered.
func TestSecureDrain(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	st := by(func(x *proxy.Exchange) {
		close(began)
		<-finish
		ok(x)
	})
	s, cfg := secure(t, st)
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	got := make(chan string, 1)
	go func() {
		resp, err := (&http.Client{Transport: tr}).Get("https://" + s.address)
		if err != nil {
			got <- err.Error()
			return
		}
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	<-began
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	until(t, "the server drains", func() bool { return !accepts(s.address) })
	close(finish)
	if text := <-got; text != "ok" {
		t.Errorf("got %q, want ok", text)
	}
	<-stopped
}

// TestHTTP2Gone: a stream that is reset frees its target.
func TestHTTP2Gone(t *testing.T) {
	asked, freed := make(chan struct{}), make(chan struct{})
	s, cfg := secure(t, stand{targets: targetsOf(raw(t, "silent", func(_ net.Conn, r *bufio.Reader) {
		_ = readRequest(r)
		close(asked)
		_, _ = r.ReadByte()
		close(freed)
	}))})
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, "GET", "https://"+s.address, nil)
	go func() { _, _ = tr.RoundTrip(r) }()
	<-asked
	cancel()
	select {
	case <-freed:
	case <-time.After(10 * time.Second):
		t.Fatal("the target is still waited for")
	}
	if r := s.done.last(t, 1); r.status != proxy.StatusClientGone {
		t.Errorf("got %+v, want 499", r)
	}
}

// TestHTTP2Duplex: answer and request flow side by side.
func TestHTTP2Duplex(t *testing.T) {
	s, cfg := secure(t, stand{targets: targetsOf(web(t, "echo", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			_, _ = w.Write(b[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
	}))})
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	body, more := io.Pipe()
	r, _ := http.NewRequestWithContext(t.Context(), "POST", "https://"+s.address, body)
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		word := fmt.Sprintf("word %d", i)
		_, _ = io.WriteString(more, word)
		got := make([]byte, len(word))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != word {
			t.Fatalf("got %q, %v, want %q", got, err, word)
		}
	}
	_ = more.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("rest: %q, %v, trailer %v", rest, err, resp.Trailer)
	}
}

// TestStuckTarget: a target that has answered and takes nothing more of a large request.
func TestStuckTarget(t *testing.T) {
	target := raw(t, "a", func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			<-t.Context().Done()
		}
	})
	s := startServer(t, stand{targets: targetsOf(target)})
	c := dial(t, s.address)
	go func() {
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
		_, _ = io.CopyN(c, zeros{}, 100_000_000)
	}()
	if resp, body := c.answer("POST"); resp.StatusCode != 200 || body != "ok" {
		t.Errorf("got %d %q, want 200 ok", resp.StatusCode, body)
	}
	until(t, "nothing in flight", func() bool { return s.pool.InFlight() == 0 })
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
