package proxy

import (
	"errors"
	"time"

	"trivet/proxy/h2"
)

var errDraining = errors.New("server ends")

// drain ends all connections: HTTP/2 clients are told, who waits for a request
// may send one more within Linger, exchanges end with Grace at the latest, and
// tunnels with TunnelGrace.
func (s *Server) drain() {
	empty := s.beginDrain()
	s.tellAll()
	linger := time.NewTimer(min(s.config.Linger, s.config.Grace))
	defer linger.Stop()
	grace := time.NewTimer(s.config.Grace)
	defer grace.Stop()
	tunnels := time.NewTimer(max(s.config.TunnelGrace, s.config.Grace))
	defer tunnels.Stop()
	for {
		select {
		case <-empty:
			return
		case <-linger.C:
			s.endIdle()
		case <-grace.C:
			s.cutExchanges()
		case <-tunnels.C:
			s.cutTunnels()
		}
	}
}

// beginDrain returns a channel that is closed when no connection is left.
func (s *Server) beginDrain() <-chan struct{} {
	s.draining.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	s.tellEmpty()
	return empty
}

// tellAll tells HTTP/2 clients to end.
func (s *Server) tellAll() {
	s.tellParked()
	for _, c := range s.http2Conns() {
		c.Shutdown()
	}
}

func (s *Server) http2Conns() (all []*h2.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := s.active.first; c != nil; c = c.next {
		if h := c.http2(); h != nil {
			all = append(all, h)
		}
	}
	return all
}

// endIdle closes what waits for a request.
func (s *Server) endIdle() {
	s.ending.Store(true)
	for c := range s.unparkAll() {
		s.crew.Run(c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := s.active.first; c != nil; c = c.next {
		c.hurry()
	}
}

// cutExchanges closes every connection that is no tunnel and, of HTTP/2, has none.
func (s *Server) cutExchanges() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := s.active.first; c != nil; c = c.next {
		if !c.tunnel.Load() && c.tunnels.Load() == 0 {
			c.cut()
		}
	}
}

// ErrDrained is why a tunnel ended whose target gets no more.
var ErrDrained = errors.New("target was drained")

// EndTunnels ends the tunnels to the target of that name.
func (s *Server) EndTunnels(target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.tunnels {
		if t.target == target {
			t.cancel(ErrDrained)
		}
	}
}

func (s *Server) cutTunnels() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.tunnels {
		t.cancel(errDraining)
	}
	for c := s.active.first; c != nil; c = c.next {
		if c.http2() != nil {
			c.cut()
		}
	}
}
