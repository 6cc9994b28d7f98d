package proxy

import (
	"net"
	"sync"
	"sync/atomic"
)

// Limit bounds how many connections are open at a time over one or more
// listeners. The newest is refused: those that are being served go on.
type Limit struct {
	left    atomic.Int64
	refused func()
}

// NewLimit returns a limit of n connections that calls refused for each one too many.
func NewLimit(n int, refused func()) *Limit {
	l := &Limit{refused: refused}
	l.left.Store(int64(n))
	return l
}

// Listener returns inner without the connections that are too many.
func (l *Limit) Listener(inner net.Listener) net.Listener {
	return &limitedListener{Listener: inner, limit: l}
}

type limitedListener struct {
	net.Listener
	limit *Limit
}

// Accept returns the next connection for which there is room; the others are reset.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.limit.left.Add(-1) >= 0 {
			return &limitedConn{Conn: c, leave: sync.OnceFunc(func() { l.limit.left.Add(1) })}, nil
		}
		l.limit.left.Add(1)
		l.limit.refused()
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = c.Close()
	}
}

type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite is how a server tells that no more comes, before it closes.
func (c *limitedConn) CloseWrite() error {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return nil
}
