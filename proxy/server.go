package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"trivet/proxy/crew"
	"trivet/proxy/h2"
	"trivet/proxy/h3"
	"trivet/proxy/wire"
)

// Config is what a Server is made of.
type Config struct {
	Log *slog.Logger
	// Handler answers each exchange, in a goroutine of the connection or stream.
	Handler func(*Exchange)
	// Done is called after each exchange, those too whose request could not be
	// understood: their Request is empty, and Err says why. Optional.
	Done func(*Exchange)
	// TLS of each connection; nil: plain.
	TLS *tls.Config
	// Name gives an exchange that the Handler never sees an ID, for its answer and
	// for Done: a request that could not be understood. Optional.
	Name func(*Exchange)
	// HTTP2 is served to who asks for it in the TLS handshake.
	HTTP2 bool
	// Limits of requests' heads.
	Limits wire.Limits
	// MaxBody bounds a request's body in bytes: 413. 0: no limit.
	MaxBody int64
	// Times that a client may take.
	Times Times
	// Connections bounds how many are open at a time; the newest is reset, and
	// Refused called. 0: no limit.
	Connections int
	Refused     func()
	// Grace is how long exchanges may go on when the server drains, TunnelGrace
	// how long tunnels may. Linger, within Grace, is for clients that wait: what
	// they send until then is answered, once, for they cannot know yet.
	Grace, TunnelGrace, Linger time.Duration
	// Handshake is called after each TLS handshake, QUIC's too, with its error. Optional.
	Handshake func(*tls.ConnectionState, error)
}

// Times are limits on a client. A zero is no limit.
type Times struct {
	Head  time.Duration // until a request's head is whole, from its first byte: 408; TLS handshakes too
	Still time.Duration // without a byte of a body, either way: 408, or broken off
	Idle  time.Duration // between two requests
	Rate  int           // bytes each second that a body must move at least, averaged over 5 s in which only the client was waited for
}

// rules are what Set can change.
type rules struct {
	limits  wire.Limits
	maxBody int64
	times   Times
}

// Stats are counts of the moment.
type Stats struct {
	Open    int // connections
	Active  int // connections on which something is under way, or was a moment ago
	Tunnels int
}

// Server serves clients' connections. It may serve several listeners; when the
// context of one of them ends, the whole server drains.
type Server struct {
	config Config
	rules  atomic.Pointer[rules]
	clock  atomic.Int64 // coarse, in nanoseconds since epoch, while anything is active
	crew   crew.Crew[*conn]
	lot    *lot // while serving

	mu      sync.Mutex
	serving int // calls of Serve
	open    int
	most    int // connections; 0: no limit
	active  list
	parked  list

	parkings     int  // since the memory that those had held was given back
	parkingsSeen int  // of them a second ago
	tide         tide // of the sweep

	tunnels  map[*tunnelRun]struct{}
	h2       *h2.Config
	h3       []*h3.Server
	empty    chan struct{} // closed when draining has come to its end
	draining atomic.Bool   // each answer is its connection's last
	ending   atomic.Bool   // Linger is over: who waits is not waited for
	timer    *time.Timer   // of the sweep, while serving
	resting  atomic.Bool   // the sweep looks late, or not at all, until it is roused
	over     chan struct{} // closed when the last Serve has ended
	parts    sync.WaitGroup
}

// epoch is what clocks count from.
var epoch = time.Now()

func sinceEpoch() int64 { return int64(time.Since(epoch)) }

// NewServer returns a server; it does nothing yet.
func NewServer(c Config) *Server {
	if c.Done == nil {
		c.Done = func(*Exchange) {}
	}
	if c.Name == nil {
		c.Name = func(*Exchange) {}
	}
	if c.Refused == nil {
		c.Refused = func() {}
	}
	if c.Handshake == nil {
		c.Handshake = func(*tls.ConnectionState, error) {}
	}
	s := &Server{config: c, most: c.Connections, tunnels: map[*tunnelRun]struct{}{}}
	s.crew.Do = (*conn).serve
	s.Set(c.Limits, c.MaxBody, c.Times)
	return s
}

// Set changes limits for the requests to come; of HTTP/2, for the connections
// to come, as of HTTP/3 the size of a whole head.
func (s *Server) Set(l wire.Limits, maxBody int64, t Times) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules.Store(&rules{l, maxBody, t})
	s.h2 = nil // made anew for the next connection
	s.tellH3()
}

// SetConnections changes how many may be open at a time; none that is open is
// closed. HTTP/3 has as many of its own.
func (s *Server) SetConnections(most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = most
	s.tellH3()
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Open: s.open, Active: s.active.n, Tunnels: len(s.tunnels)}
}

// Serve answers on l until ctx ends; then it drains, and returns nil once all
// connections are closed. It closes l; a duplicate of l in another process
// keeps the queue of connections.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := s.enter(); err != nil {
		_ = l.Close()
		return err
	}
	defer s.leave()
	stop := context.AfterFunc(ctx, func() {
		s.draining.Store(true) // who finds l closed finds the server draining
		_ = l.Close()
	})
	defer stop()
	err := AcceptAll(ctx, l, s.admit)
	_ = l.Close()
	s.drain()
	return err
}

// enter starts what all listeners share.
func (s *Server) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving == 0 {
		lot, err := newLot(s.ready)
		if err != nil {
			return fmt.Errorf("open epoll: %w", err)
		}
		s.lot, s.over = lot, make(chan struct{})
		s.draining.Store(false)
		s.ending.Store(false)
		s.clock.Store(sinceEpoch())
		s.timer = time.NewTimer(sweepStep)
		s.resting.Store(false)
		s.parts.Go(lot.run)
		s.parts.Go(func() { s.sweep(s.over) })
	}
	s.serving++
	return nil
}

// leave ends what all listeners shared.
func (s *Server) leave() {
	s.mu.Lock()
	s.serving--
	last := s.serving == 0
	s.mu.Unlock()
	if !last {
		return
	}
	close(s.over)
	s.lot.close()
	s.crew.Dismiss()
	s.parts.Wait()
}

// admit begins to serve nc, or resets it if there are too many.
func (s *Server) admit(nc net.Conn) {
	s.mu.Lock()
	refused := s.most > 0 && s.open >= s.most
	if !refused {
		s.open++
	}
	s.mu.Unlock()
	if refused {
		s.config.Refused()
		reset(nc)
		return
	}
	c := newConn(s, nc)
	if s.join(c) > crowded && c.parkNew() {
		return
	}
	s.crew.Run(c)
}

// reset closes nc without waiting for what is under way.
func reset(nc net.Conn) {
	if t, ok := nc.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = nc.Close()
}

// gone notes that a connection is closed.
func (s *Server) gone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	s.tellEmpty()
}

// tellEmpty is called with s.mu held.
func (s *Server) tellEmpty() {
	if s.open == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}
