package proxy

import (
	"errors"
	"time"

	"trivet/proxy/h2"
)

var errDraining = errors.New("server ends")

// drain ends all connections: idle ones at once, those with exchanges when
// these are done or Grace is over, tunnels when TunnelGrace is.
func (s *Server) drain() {
	empty := s.beginDrain()
	s.endIdle()
	grace := time.NewTimer(s.config.Grace)
	defer grace.Stop()
	tunnels := time.NewTimer(max(s.config.TunnelGrace, s.config.Grace))
	defer tunnels.Stop()
	for {
		select {
		case <-empty:
			return
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

// endIdle closes what waits for a request, and tells HTTP/2 clients to end.
func (s *Server) endIdle() {
	for c := range s.unparkAll() {
		s.crew.run(c)
	}
	for _, c := range s.hurryAll() {
		c.Shutdown()
	}
}

func (s *Server) hurryAll() (all []*h2.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := s.active.first; c != nil; c = c.next {
		if h := c.hurry(); h != nil {
			all = append(all, h)
		}
	}
	return all
}

// cutExchanges closes every connection that is no tunnel.
func (s *Server) cutExchanges() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := s.active.first; c != nil; c = c.next {
		if !c.tunnel.Load() {
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
}
