package proxy

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"time"

	"trivet/proxy/h2"
	"trivet/proxy/wire"
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
		s.h2 = &h2.Config{
			Handle: s.handleH2, Refused: s.refusedH2,
			Limits: r.limits, Park: idleWait, Head: r.times.Head, Still: r.times.Still, Rate: r.times.Rate,
		}
	}
	return s.h2
}

// serveH2 serves c until it is parked or closed.
func (c *conn) serveH2() {
	for {
		if c.server.draining.Load() {
			c.h2.Shutdown()
		}
		idle, err := c.h2.Serve()
		switch {
		case !idle || err != nil:
			c.close()
			return
		case !c.server.draining.Load() && c.park(c.server.rules.Load().times.Idle):
			return
		}
	}
}

// exchanges are those of HTTP/2 and 3; a turn of HTTP/1.1 has its own.
var exchanges = sync.Pool{New: func() any { return new(Exchange) }}

// handleH2 answers one stream.
func (s *Server) handleH2(st *h2.Stream) {
	c := st.Net().(*h2Conn).owner
	s.serveStream(st, st.Request(), c.peer, c.state, st.OnGone)
}

// serveStream answers one stream of HTTP/2 or 3.
func (s *Server) serveStream(st Stream, r *wire.Request, peer netip.AddrPort, state *tls.ConnectionState, onGone func(func())) {
	x := exchanges.Get().(*Exchange)
	x.renew()
	x.Request, x.Stream, x.server = r, st, s
	x.Peer, x.Client = peer, peer.Addr()
	x.Secure, x.TLS, x.Server = true, state, state.ServerName
	w := new(watch) // not used again: the stream may tell late
	x.watch = w
	onGone(w.leave)
	sound := s.handle(x)
	s.conclude(x)
	w.end()
	if sound {
		x.renew()
		exchanges.Put(x)
	}
}

// refusedH2 is refused for a stream of c.
func (s *Server) refusedH2(c net.Conn, status int) []wire.Field {
	return s.refused(2, c.(*h2Conn).owner.peer, status)
}

// refused notes a request that is answered before it became an exchange, and
// gives the fields to answer it with.
func (s *Server) refused(major uint8, peer netip.AddrPort, status int) []wire.Field {
	x := &Exchange{Request: &wire.Request{Major: major}, Secure: true, Status: status, Begin: time.Now()}
	x.Peer, x.Client = peer, peer.Addr()
	s.config.Name(x)
	s.conclude(x)
	return x.Out
}
