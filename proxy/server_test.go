package proxy_test

import (
	"bufio"
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
	"trivet/proxy/proxytest"
	"trivet/proxy/upstream"
	"trivet/proxy/wire"
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
		resp, err := http.ReadResponse(c.r, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
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
	proxytest.Until(t, "room for another", another)
	s.server.SetConnections(1)
	if another() {
		t.Error("a second is answered when the limit has become 1")
	}
	s.server.SetConnections(2)
	proxytest.Until(t, "room for another", another)
	if !asks(b) {
		t.Error("one that was open is closed")
	}
}

// TestParking: idle connections hold no goroutine, and are answered still.
func TestParking(t *testing.T) {
	s := startServer(t, by(ok))
	var all []*client
	before := 0 // goroutines once the server runs, and one connection's
	for range 500 {
		c := dial(t, s.address)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.answer("GET")
		all = append(all, c)
		if before == 0 {
			before = runtime.NumGoroutine()
		}
	}
	proxytest.Until(t, "all are parked", func() bool { return s.server.Stats().Active == 0 })
	proxytest.Until(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	if n := s.server.Stats().Open; n != 500 {
		t.Errorf("open: got %d, want 500", n)
	}
	for _, c := range all {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, body := c.answer("GET"); body != "ok" {
			t.Fatalf("got %q", body)
		}
	}
	proxytest.Until(t, "all are parked again", func() bool { return s.server.Stats().Active == 0 })
	for _, c := range all[:250] {
		_ = c.Close()
	}
	proxytest.Until(t, "half of them are gone", func() bool { return s.server.Stats().Open == 250 })
	s.stop()
	for _, c := range all[250:] {
		if !c.ended() {
			t.Fatal("a parked connection was not closed")
		}
	}
}

// TestSilentCrowd: of many who connect and say nothing, few get a goroutine, and
// all are answered once they speak.
func TestSilentCrowd(t *testing.T) {
	s := startServer(t, by(ok))
	before := runtime.NumGoroutine()
	const crowd, few = 400, 150
	var all []*client
	for range crowd {
		all = append(all, dial(t, s.address))
	}
	proxytest.Until(t, "all are accepted", func() bool { return s.server.Stats().Open == crowd })
	if n := s.server.Stats().Active; n > few {
		t.Errorf("active: got %d of %d silent connections, want at most %d", n, crowd, few)
	}
	if n := runtime.NumGoroutine() - before; n > few {
		t.Errorf("goroutines for %d silent connections: got %d, want at most %d", crowd, n, few)
	}
	for _, c := range all {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, body := c.answer("GET"); body != "ok" {
			t.Fatalf("got %q", body)
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

// TestMemoryIsGivenBack: what many answers took that were held back at a time is
// given back, also if no connection is left then.
func TestMemoryIsGivenBack(t *testing.T) {
	const size, many = 60_000, 300
	rest := make(chan struct{})
	st := stand{targets: []*upstream.Target{web(t, "a", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", itoa(size))
		_, _ = w.Write(make([]byte, size-1))
		_ = http.NewResponseController(w).Flush()
		<-rest
		_, _ = w.Write(make([]byte, 1))
	})}}
	s := startServer(t, st)
	var all []*client
	for range many {
		c := dial(t, s.address)
		c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		all = append(all, c)
	}
	proxytest.Until(t, "the answers are held back", func() bool { return s.server.HighTide() > many*size })
	before := forced()
	close(rest)
	for _, c := range all {
		c.answer("GET")
		_ = c.Close()
	}
	s.done.last(t, many)
	proxytest.Until(t, "the memory is given back", func() bool { return forced() > before })
}

// forced is how many collections were asked for.
func forced() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumForcedGC
}

// TestLimitsOfWhoWaits: limits that are changed while a connection waits go for its next request.
func TestLimitsOfWhoWaits(t *testing.T) {
	st := by(ok)
	st.config.Limits = wire.Limits{Target: 1000, Field: 1000, Head: 1000, Count: 10}
	s := startServer(t, st)
	c := dial(t, s.address)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.answer("GET")
	s.done.last(t, 1)
	s.server.Set(wire.Limits{Target: 9000, Field: 9000, Head: 9000, Count: 10}, 0, proxy.Times{})
	c.send("GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 5000) + "\r\n\r\n")
	if resp, _ := c.answer("GET"); resp.StatusCode != 200 {
		t.Errorf("got %d, want 200", resp.StatusCode)
	}
}
