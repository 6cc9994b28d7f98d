// Package router is how an app reaches the database: one local address on each
// server, behind which is whichever server takes the writes now, and a second
// one for reads.
//
// The router ends the client's handshake itself and signs in to mariadbd as
// the app's user. A statement goes to the writer's mariadbd: over its unix
// socket if this server is the writer, and else through the tunnel, mutual TLS
// to the router of the writer, which pipes to its own. It knows of each
// session whether a transaction is open, what was set in it, and what of it no
// other server could be given (package wire).
//
// When the agreed writer changes, or a connection to it is lost, sessions
// outside of a transaction go on with the new writer; statements wait up to
// three seconds for it. Who was in a transaction learns from the next
// statement that it was rolled back. A statement that was under way is never
// sent again: its client is told that nobody knows, and the connection ends.
// (One at the address for reads is, for it changes nothing.)
// Who holds what cannot be taken along (user variables, temporary tables,
// locks) loses the connection. Not taken along, and not missed either, are
// LAST_INSERT_ID(), FOUND_ROWS(), ROW_COUNT() and warnings of the statement
// before; and a lock that a stored routine took is not known here.
//
// The tunnel takes connections from routers of this site only, and for writes
// only in the epoch in which this server is the writer: a router that has not
// heard of a change yet, on either side, cannot bring a statement to the wrong
// server. One that hears from another of a newer epoch follows it until its
// own node says something newer.
package router

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"trivet/database/router/digest"
	"trivet/internal/metric"
	"trivet/internal/mtls"
	"trivet/internal/part"
)

const (
	defaultLimit  = 150 // connections at a time; three servers stay below mariadbd's limit
	maxWaiting    = 512 // further ones that wait for a place
	shakeTimeout  = 2 * time.Second
	drainDeadline = 5 * time.Second
	drainIdle     = 50 * time.Millisecond // a session that rests so long is between two requests
	upkeep        = 15 * time.Second
)

// Config is what New needs.
type Config struct {
	Log        *slog.Logger
	Metrics    *metric.Registry
	SQL        net.Listener // 127.0.0.1:3306, for the app
	Socket     net.Listener // the same as a unix socket; may be nil
	Read       net.Listener // 127.0.0.1:3307, for reads; may be nil
	ReadSocket net.Listener // the same as a unix socket; may be nil
	Tunnel     net.Listener // PortTunnel of this server's address, for the routers of the others

	Database   string // mariadbd's unix socket; empty: part.SQLSocket
	TunnelPort int    // of the others; 0: part.PortTunnel
}

// Router leads database sessions. It implements part.Part and part.Inspector.
type Router struct {
	cfg         Config
	log         *slog.Logger
	source      mtls.Source
	accept      *tls.Config
	meters      meters
	credentials atomic.Pointer[credentials]
	version     atomic.Pointer[string] // of mariadbd

	writes, reads *pool
	own           *targets // this server's database, for others' reads
	course        course
	digests       *digest.Table

	gate      gate
	sessions  sessions
	clients   atomic.Int64 // signed in or about to be
	held      atomic.Int64 // that wait for an upstream
	threads   atomic.Uint32
	callers   atomic.Int64 // connections of other routers
	tunnelled atomic.Int64 // of those, to mariadbd
	writers   atomic.Int64 // of those, for writes

	conns   sync.WaitGroup
	leaving chan struct{} // closed when the router takes no new connections
}

// New returns a router that holds connections until a writer is known.
func New(cfg Config) *Router {
	if cfg.Database == "" {
		cfg.Database = part.SQLSocket
	}
	if cfg.TunnelPort == 0 {
		cfg.TunnelPort = part.PortTunnel
	}
	r := &Router{cfg: cfg, log: cfg.Log, own: newTargets(), gate: gate{limit: defaultLimit, most: maxWaiting}, leaving: make(chan struct{})}
	r.writes = &pool{r: r, kind: kindWrite, targets: newTargets(), limit: defaultLimit}
	r.reads = &pool{r: r, kind: kindRead, targets: newTargets(), limit: defaultLimit}
	r.accept = mtls.Server(&r.source, part.Router)
	version := unknownVersion
	r.version.Store(&version)
	r.credentials.Store(&credentials{})
	r.register(cfg.Metrics)
	r.digests = digest.New(cfg.Log, cfg.Metrics)
	return r
}

// Run serves until ctx ends, then lets what is under way end.
func (r *Router) Run(ctx context.Context) error {
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var loops sync.WaitGroup
	errs := make(chan error, 8)
	serve := func(l net.Listener, f func(context.Context, net.Conn)) {
		if l != nil {
			loops.Go(func() { errs <- r.serve(ctx, serving, l, f) })
		}
	}
	write := func(ctx context.Context, c net.Conn) { r.client(ctx, c, r.writes) }
	read := func(ctx context.Context, c net.Conn) { r.client(ctx, c, r.reads) }
	serve(r.cfg.SQL, write)
	serve(r.cfg.Socket, write)
	serve(r.cfg.Read, read)
	serve(r.cfg.ReadSocket, read)
	serve(r.cfg.Tunnel, r.peer)
	loops.Go(func() { r.upkeep(ctx) })
	loops.Go(func() { r.watch(ctx) })
	loops.Wait()
	close(r.leaving)
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
		r.conns.Go(func() {
			stop := context.AfterFunc(serving, func() { _ = c.Close() })
			defer stop()
			defer func() { _ = c.Close() }()
			f(serving, c)
		})
	}
}

// upkeep closes connections that were kept for too long.
func (r *Router) upkeep(ctx context.Context) {
	for pause(ctx, upkeep) {
		r.writes.prune(time.Now())
		r.reads.prune(time.Now())
	}
}

// drain ends each session between two requests and outside of a transaction,
// and after a while all that is left.
func (r *Router) drain(cancel context.CancelFunc) {
	limit, stop := context.WithTimeout(context.Background(), drainDeadline)
	defer stop()
	done := make(chan struct{})
	go func() {
		r.conns.Wait()
		close(done)
	}()
	for r.tunnelled.Load() > 0 || r.sessions.count() > 0 {
		r.sessions.each((*session).part)
		if !pauseOr(limit, drainIdle, done) {
			break
		}
	}
	cancel()
	<-done
	r.writes.close()
	r.reads.close()
}

// Check is nil while a writer is known.
func (r *Router) Check(context.Context) error {
	a, known := r.writes.now()
	switch {
	case !known:
		return errors.New("no state yet")
	case a.server == "":
		return errors.New("no server takes the writes yet: see part database")
	}
	return nil
}

// pause waits for d; false if ctx ended before.
func pause(ctx context.Context, d time.Duration) bool { return pauseOr(ctx, d, nil) }

// pauseOr waits for d or until sooner is closed; false if ctx ended before.
func pauseOr(ctx context.Context, d time.Duration, sooner <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-sooner:
		return true
	case <-ctx.Done():
		return false
	}
}

func readFull(c io.Reader, b []byte) error {
	_, err := io.ReadFull(c, b)
	return err
}

// thread is a connection's number for the client.
func (r *Router) thread() uint32 { return firstThread + r.threads.Add(1)%firstThread }
