package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"trivet/proxy"
	"trivet/proxy/proxytest"
)

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
	proxytest.Until(t, "the server drains", func() bool { return !accepts(s.address) })
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

// TestLinger: who waits when the drain begins, parked or not, can send one more request.
func TestLinger(t *testing.T) {
	st := by(ok)
	st.config.Linger = time.Minute
	s := startServer(t, st)
	parked, silent := dial(t, s.address), dial(t, s.address)
	parked.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	parked.answer("GET")
	proxytest.Until(t, "both are parked", func() bool { return s.server.Stats() == proxy.Stats{Open: 2} })
	fresh := dial(t, s.address)
	proxytest.Until(t, "the third is there", func() bool { return s.server.Stats().Open == 3 })
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	proxytest.Until(t, "the server drains", func() bool { return !accepts(s.address) })
	for _, c := range []*client{fresh, parked, silent} {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp, body := c.answer("GET"); body != "ok" || !resp.Close {
			t.Errorf("got %q, close %v, want ok and a close", body, resp.Close)
		}
		if !c.ended() {
			t.Error("the connection was not closed")
		}
	}
	<-stopped
}

// TestLingerEnds: who sends nothing is not waited for any longer.
func TestLingerEnds(t *testing.T) {
	st := by(ok)
	st.config.Linger = 10 * time.Millisecond
	s := startServer(t, st)
	parked, fresh := dial(t, s.address), (*client)(nil)
	proxytest.Until(t, "it is parked", func() bool { return s.server.Stats() == proxy.Stats{Open: 1} })
	fresh = dial(t, s.address)
	proxytest.Until(t, "the second is there", func() bool { return s.server.Stats().Open == 2 })
	s.stop()
	if !parked.ended() || !fresh.ended() {
		t.Error("connections were not closed")
	}
}

// TestGrace: what takes too long is cut off.
func TestGrace(t *testing.T) {
	st := stand{targets: targetsOf(raw(t, "a", func(_ net.Conn, r *bufio.Reader) { _ = readRequest(r); _, _ = r.ReadByte() }))}
	st.config.Grace = 50 * time.Millisecond
	s := startServer(t, st)
	c := dial(t, s.address)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	proxytest.Until(t, "the request is with its target", func() bool { return s.pool.InFlight() == 1 })
	s.stop()
}
