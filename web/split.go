package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trivet/proxy"
	"trivet/proxy/proxyproto"
)

// Bounds on what a connection may do before it is known whose it is.
const (
	splitTimeout = 5 * time.Second
	splitting    = 1024 // connections at a time; the newest is closed
)

// split takes a listener's connections apart: those that begin with a PROXY
// protocol header are visitors', the others balancers'.
type split struct {
	inner     net.Listener
	balancers *proxy.Handed
	visitors  *proxy.Handed
}

func newSplit(l net.Listener) *split {
	return &split{inner: l, balancers: proxy.NewHanded(l.Addr()), visitors: proxy.NewHanded(l.Addr())}
}

// run accepts until ctx ends, and returns when every connection is handed over.
func (s *split) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.inner.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.balancers.End()
	defer s.visitors.End()
	room := make(chan struct{}, splitting)
	return proxy.AcceptAll(ctx, s.inner, func(c net.Conn) {
		select {
		case room <- struct{}{}:
			wg.Go(func() { defer func() { <-room }(); s.assign(c) })
		default:
			_ = c.Close()
		}
	})
}

// assign looks at how c begins and hands it over.
func (s *split) assign(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(splitTimeout))
	first, err := peek(c)
	if err != nil {
		_ = c.Close()
		return
	}
	if first != proxyproto.First {
		_ = c.SetReadDeadline(time.Time{})
		s.balancers.Take(c)
		return
	}
	h, err := proxyproto.Read(c, nil)
	if err != nil || !h.Source.IsValid() {
		_ = c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	s.visitors.Take(&visitorConn{Conn: c, from: h.Source})
}

// peek waits for c's first byte and leaves it where it is.
func peek(c net.Conn) (byte, error) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return 0, fmt.Errorf("peek into a %T", c)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, err
	}
	var first [1]byte
	var n int
	e := raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), first[:], unix.MSG_PEEK)
		return !errors.Is(err, unix.EAGAIN)
	})
	if err = errors.Join(e, err); err == nil && n == 0 {
		err = io.EOF
	}
	return first[0], err
}

// visitorConn comes from where its PROXY header says.
type visitorConn struct {
	net.Conn
	from netip.AddrPort
}

// RemoteAddr is the visitor's.
func (c *visitorConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.from) }

// CloseWrite ends this side only.
func (c *visitorConn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("close one side of a %T: %w", c.Conn, errors.ErrUnsupported)
	}
	return half.CloseWrite()
}

// SyscallConn is the socket's.
func (c *visitorConn) SyscallConn() (syscall.RawConn, error) {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("use the socket of a %T: %w", c.Conn, errors.ErrUnsupported)
	}
	return s.SyscallConn()
}
