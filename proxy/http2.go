package proxy

import (
	"crypto/tls"
	"sync"

	"trivet/proxy/h2"
)

// h2Conn is a connection as package h2 has it, from which its streams find c.
type h2Conn struct {
	*tls.Conn
	owner *conn
}

// http2Config is what HTTP/2 connections share.
func (s *Server) http2Config() *h2.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.h2 == nil {
		r := s.rules.Load()
		s.h2 = &h2.Config{Handle: s.handleH2, Limits: r.limits, Park: idleWait, Head: r.times.Head, Still: r.times.Still}
	}
	return s.h2
}

// serveH2 serves c until it is parked or closed.
func (c *conn) serveH2() {
	idle, err := c.h2.Serve()
	if idle && err == nil {
		c.park(c.server.rules.Load().times.Idle)
		return
	}
	c.close()
}

var exchanges = sync.Pool{New: func() any { return new(Exchange) }}

// handleH2 answers one stream.
func (s *Server) handleH2(st *h2.Stream) {
	c := st.Net().(*h2Conn).owner
	x := exchanges.Get().(*Exchange)
	x.renew()
	x.Request, x.Stream, x.watch, x.server = st.Request(), st, new(watch), s
	x.Peer, x.Client = c.peer, c.peer.Addr()
	x.Secure, x.TLS, x.Server = true, c.state, c.state.ServerName
	st.OnGone(x.watch.leave)
	s.handle(x)
	s.conclude(x)
	x.watch.end()
	x.Request, x.Stream, x.watch = nil, nil, nil
	exchanges.Put(x)
}
