package h2

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// halfClosed is a server's socket that says when our side of it was ended, however.
type halfClosed struct {
	*net.TCPConn
	once  sync.Once
	ended chan struct{}
}

func (e *halfClosed) CloseWrite() error { return e.end(e.TCPConn.CloseWrite) }
func (e *halfClosed) Close() error      { return e.end(e.TCPConn.Close) }

func (e *halfClosed) end(by func() error) error {
	err := by()
	e.once.Do(func() { close(e.ended) })
	return err
}

// narrowPair is a connection whose client's side takes little at a time.
func narrowPair(t *testing.T) (client net.Conn, server *halfClosed) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	defer closed(l)
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { must(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 8192)) })
	}}
	client, err = d.DialContext(t.Context(), "tcp", l.Addr().String())
	must(err)
	n, err := l.Accept()
	must(err)
	must(n.(*net.TCPConn).SetWriteBuffer(1 << 20))
	t.Cleanup(func() { closed(client); closed(n) })
	must(client.SetDeadline(time.Now().Add(60 * time.Second)))
	return client, &halfClosed{TCPConn: n.(*net.TCPConn), ended: make(chan struct{})}
}

// tlsPair puts TLS over both sides.
func tlsPair(t *testing.T, client net.Conn, server net.Conn) (net.Conn, net.Conn) {
	t.Helper()
	with := httptest.NewTLSServer(nil)
	t.Cleanup(with.Close)
	trust := with.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	trust.ServerName = "example.com"
	c, s := tls.Client(client, trust), tls.Server(server, &tls.Config{Certificates: with.TLS.Certificates})
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	must(c.HandshakeContext(t.Context()))
	must(<-done)
	return c, s
}

// TestNothingIsLostAtTheEnd: what was written when a connection ends, by
// Shutdown or, parked, by End, reaches a client that takes it only then, and
// says so by WINDOW_UPDATEs.
func TestNothingIsLostAtTheEnd(t *testing.T) {
	for _, way := range []string{"Shutdown", "End"} {
		for _, secure := range []bool{false, true} {
			t.Run(way+map[bool]string{true: " over TLS"}[secure], func(t *testing.T) {
				t.Parallel()
				atTheEnd(t, way, secure)
			})
		}
	}
}

func atTheEnd(t *testing.T, way string, secure bool) {
	const size = 128 << 10
	narrow, socket := narrowPair(t)
	client, server := narrow, net.Conn(socket)
	if secure {
		client, server = tlsPair(t, client, server)
	}
	written := make(chan struct{})
	c := New(server, &Config{Still: 20 * time.Second, Park: 50 * time.Millisecond, Handle: func(s *Stream) {
		_ = s.Head(200, nil, size)
		_, _ = s.Write(make([]byte, size))
		_ = s.End(nil)
		close(written)
	}})
	over := make(chan error, 1)
	go func() {
		idle, err := c.Serve()
		if idle {
			c.End()
		}
		over <- err
	}()
	r := (&bench{t: t, addr: "a"}).greet(t, client, http2.Setting{ID: http2.SettingInitialWindowSize, Val: size})
	must(r.WriteWindowUpdate(0, size))
	must(r.open(1, r.getHead(), true))
	select {
	case <-written:
	case err := <-over:
		t.Fatalf("ended before all was written: %v", err)
	}
	if way == "Shutdown" {
		c.Shutdown()
	}
	<-socket.ended
	if n := unsent(socket); n < size/4 {
		t.Fatalf("%d bytes are queued, too few to lose any", n)
	}
	if got := r.takeAll(); got != size {
		t.Errorf("got %d bytes, want %d", got, size)
	}
	closed(client)
	if err := <-over; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

// takeAll reads until the end, opens the window for each frame, and says how
// many bytes of bodies came.
func (r *raw) takeAll() (got int) {
	for {
		f, err := r.ReadFrame()
		if err == io.EOF {
			return got
		}
		if err != nil {
			r.t.Errorf("after %d bytes: %v", got, err)
			return got
		}
		if d, ok := f.(*http2.DataFrame); ok {
			got += len(d.Data())
			_ = r.WriteWindowUpdate(0, uint32(len(d.Data()))) // a reset shows in what is read
		}
	}
}
