// Package router is how an app reaches the database: one local address on each
// server, behind which is whichever server takes the writes now.
//
// A connection is piped, byte for byte, to mariadbd's unix socket if this
// server is the writer, and else through the tunnel: mutual TLS to the router
// of the writer, which pipes to its own. When the agreed writer changes, every
// piped connection is closed at once, so that nothing is written to a former
// writer; new ones wait up to three seconds for the new writer, then get an
// error that a database client understands.
//
// The tunnel takes connections from routers of this site only, and only for
// the epoch in which this server is the writer: a router that has not heard of
// a change yet, on either side, cannot bring a statement to the wrong server.
package router

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"trivet/internal/metric"
	"trivet/internal/mtls"
	"trivet/internal/part"
)

const (
	patience      = 3 * time.Second // for a writer to be known and reachable, and for a free place
	attempt       = time.Second     // one try to reach it
	maxPiped      = 150             // connections at a time; three servers stay below mariadbd's limit
	maxWaiting    = 512             // further ones that wait for a place
	maxTunnel     = 2 * maxPiped    // from the two others
	shakeTimeout  = 2 * time.Second
	stallTimeout  = time.Minute // for one write to make progress
	drainDeadline = time.Second
)

// Config is what New needs.
type Config struct {
	Log     *slog.Logger
	Metrics *metric.Registry
	SQL     net.Listener // 127.0.0.1:3306, for the app
	Socket  net.Listener // the same as a unix socket; may be nil
	Tunnel  net.Listener // PortTunnel of this server's address, for the routers of the others

	Database   string // mariadbd's unix socket; empty: part.SQLSocket
	TunnelPort int    // of the others; 0: part.PortTunnel
}

// Router pipes database connections. It implements part.Part.
type Router struct {
	cfg     Config
	log     *slog.Logger
	source  mtls.Source
	accept  *tls.Config
	targets targets
	meters  meters

	piped, waiting, tunnelled chan struct{} // a place each
	pipes                     sync.WaitGroup
}

// New returns a router that holds connections until a writer is known.
func New(cfg Config) *Router {
	if cfg.Database == "" {
		cfg.Database = part.SQLSocket
	}
	if cfg.TunnelPort == 0 {
		cfg.TunnelPort = part.PortTunnel
	}
	r := &Router{
		cfg: cfg, log: cfg.Log, meters: newMeters(cfg.Metrics), targets: targets{life: make(chan struct{})},
		piped: make(chan struct{}, maxPiped), waiting: make(chan struct{}, maxWaiting), tunnelled: make(chan struct{}, maxTunnel),
	}
	r.accept = mtls.Server(&r.source, part.Router)
	return r
}

// Apply takes the identity and the writer from s. A new epoch closes every
// piped connection.
func (r *Router) Apply(_ context.Context, s part.State) error {
	if err := r.source.Set(s.Identity, s.Bundle); err != nil {
		return fmt.Errorf("apply router: %w", err)
	}
	t := target{epoch: s.Database.Epoch, writer: s.Database.Writer, local: s.Database.Writer == s.Server}
	if m, ok := s.Member(t.writer); ok {
		t.address = m.Address
	}
	if t.writer != "" && t.address == "" && !t.local {
		return fmt.Errorf("apply router: the site names no address of the writer %q", t.writer)
	}
	if old, changed := r.targets.set(t); changed {
		r.log.Info("writer", "writer", t.writer, "epoch", t.epoch, "was", old.writer)
	}
	return nil
}

// Run serves until ctx ends, then closes what is still piped after a moment.
func (r *Router) Run(ctx context.Context) error {
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var loops sync.WaitGroup
	errs := make(chan error, 3)
	serve := func(l net.Listener, f func(context.Context, net.Conn)) {
		if l == nil {
			return
		}
		loops.Go(func() { errs <- r.serve(ctx, serving, l, f) })
	}
	serve(r.cfg.SQL, r.client)
	serve(r.cfg.Socket, r.client)
	serve(r.cfg.Tunnel, r.peer)
	loops.Wait()
	r.drain(cancel)
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// serve accepts connections from l until ctx ends; f gets each in a goroutine.
func (r *Router) serve(ctx, serving context.Context, l net.Listener, f func(context.Context, net.Conn)) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		case err != nil: // such as too many open files: others may close theirs
			r.log.Warn("accept", "on", l.Addr().String(), "err", err)
			if !pause(ctx, 50*time.Millisecond) {
				return nil
			}
			continue
		}
		r.pipes.Go(func() {
			defer func() { _ = c.Close() }()
			f(serving, c)
		})
	}
}

// drain waits a moment for pipes to end by themselves, then ends them.
func (r *Router) drain(cancel context.CancelFunc) {
	done := make(chan struct{})
	go func() {
		r.pipes.Wait()
		close(done)
	}()
	t := time.NewTimer(drainDeadline)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
	cancel()
	<-done
}

// Check is nil while a writer is known.
func (r *Router) Check(context.Context) error {
	t, _, known := r.targets.now()
	switch {
	case !known:
		return errors.New("no state yet")
	case t.writer == "":
		return errors.New("no server takes the writes yet: see part database")
	}
	return nil
}

// pause waits for d; false if ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
