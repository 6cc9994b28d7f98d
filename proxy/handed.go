package proxy

import (
	"net"
	"sync"
)

// Handed is a listener whose connections another one has accepted, and hands on
// once it knows whose they are.
type Handed struct {
	address net.Addr
	conns   chan net.Conn
	over    chan struct{} // closed when no more come
	end     func()        // closes over, once
}

// NewHanded returns a listener that says it is at address.
func NewHanded(address net.Addr) *Handed {
	h := &Handed{address: address, conns: make(chan net.Conn), over: make(chan struct{})}
	h.end = sync.OnceFunc(func() { close(h.over) })
	return h
}

// Take hands c to whoever accepts. It waits for them; after End, c is closed.
func (h *Handed) Take(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.over:
		_ = c.Close()
	}
}

// End says that no more come: Accept returns net.ErrClosed from now on.
func (h *Handed) End() { h.end() }

// Accept returns the next connection, net.ErrClosed after End.
func (h *Handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.over:
		return nil, net.ErrClosed
	}
}

// Close does nothing: a server that stops accepting must not end what the one
// who hands on has under way. It ends by End.
func (h *Handed) Close() error { return nil }

// Addr is where the connections were accepted.
func (h *Handed) Addr() net.Addr { return h.address }
