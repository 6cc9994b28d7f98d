package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"trivet/database/router/wire"
)

// pool is the connections to where one kind of statements goes: those in use
// are their sessions', the idle ones wait here for the next.
type pool struct {
	r *Router
	kind
	*targets

	series atomic.Uint64 // of connections: those of a former one are given up where nobody notices

	mu    sync.Mutex
	idle  []*upstream // the latest used last
	using int
	limit int
}

const (
	patience  = 3 * time.Second // for a writer to be known and reachable, and for a free place
	attempt   = time.Second     // one try to reach it
	idleLimit = time.Minute     // for a kept connection
	idleMost  = 64
)

// errHeld is why a session waits though the writer is known.
var errHeld = errors.New("its switch to another server is under way")

// get returns a connection of that profile with that database current, kept or
// new, as soon as there is one; it waits until ctx ends. An error of type
// *wire.Error is the server's own and of no passing nature.
func (p *pool) get(ctx context.Context, pr profile, database string) (*upstream, error) {
	last := errors.New("no server is agreed to take them")
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		a, err := p.wait(ctx, func(t target) bool { return t.server != "" && !t.held })
		if err != nil {
			if a.held {
				last = errHeld
			}
			return nil, last
		}
		u, err := p.one(ctx, a, pr, database)
		if err == nil {
			return u, nil
		}
		if e, ok := errors.AsType[*wire.Error](err); ok && lasting(e) {
			return nil, err
		}
		last = fmt.Errorf("connect to %s: %w", a.server, err)
		if !pauseOr(ctx, wait, a.life) {
			return nil, last
		}
	}
}

// lasting reports whether the server refused for good: an unknown database, or no right to it.
func lasting(e *wire.Error) bool { return e.Code == 1049 || e.Code == 1044 }

// one returns a kept connection or makes one, at the first place that has it.
func (p *pool) one(ctx context.Context, a aim, pr profile, database string) (*upstream, error) {
	for u := p.take(a.generation, pr, database); u != nil; u = p.take(a.generation, pr, database) {
		if u.alive() && u.use(database) == nil {
			return u, nil
		}
		u.cut()
		p.gone()
	}
	var last error
	for _, at := range a.places {
		u, err := p.make(ctx, a, at, pr, database)
		if err == nil {
			return u, nil
		}
		last = err
	}
	p.gone()
	return nil, last
}

// make connects to at. It does not wait for a former writer.
func (p *pool) make(ctx context.Context, a aim, at place, pr profile, database string) (*upstream, error) {
	ctx, stop := during(ctx, a.life)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	series := p.series.Load()
	u, err := p.r.connect(ctx, a, at, p.kind, pr, database)
	if err == nil {
		u.series = series
	}
	return u, err
}

// renew has all connections replaced, those in use once nothing is under way in them.
func (p *pool) renew() {
	p.series.Add(1)
	p.prune(time.Now())
}

// use makes database the current one.
func (u *upstream) use(database string) error {
	if database == u.database {
		return nil
	}
	if err := u.exec(wire.InitDB, database); err != nil {
		return err
	}
	u.database = database
	return nil
}

// take counts one more in use, and returns a kept one that fits, if there is
// one. A connection without a current database cannot be had of one that has.
func (p *pool) take(generation uint64, pr profile, database string) *upstream {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.using++
	best := -1
	for i, u := range slices.Backward(p.idle) {
		if u.profile != pr || u.generation != generation || database == "" && u.database != "" {
			continue
		}
		if u.database == database {
			best = i
			break
		}
		best = max(best, i)
	}
	if best >= 0 {
		u := p.idle[best]
		p.idle = slices.Delete(p.idle, best, best+1)
		return u
	}
	if len(p.idle) > 0 && p.using+len(p.idle) > p.limit {
		p.idle[0].cut()
		p.idle = slices.Delete(p.idle, 0, 1)
	}
	return nil
}

// gone counts one less in use.
func (p *pool) gone() {
	p.mu.Lock()
	p.using--
	p.mu.Unlock()
}

// put keeps u for the next client, or closes it. Its session is cleaned first.
// One for reads is never kept: after COM_RESET_CONNECTION MariaDB 10.11 waits
// no more before a read, whatever wsrep_sync_wait is set to.
func (p *pool) put(u *upstream) {
	err := errHeld
	if p.fresh(u) && p.kind != kindRead {
		err = u.clean()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.using--
	if err != nil || !p.fresh(u) || len(p.idle) >= idleMost || p.using+len(p.idle) >= p.limit {
		u.cut()
		return
	}
	u.since = time.Now()
	p.idle = append(p.idle, u)
}

// fresh reports whether u leads where statements go now, and new transactions may go there.
func (p *pool) fresh(u *upstream) bool {
	return u.generation == p.generation.Load() && u.series == p.series.Load() && !p.held.Load()
}

// prune closes the kept ones that lead elsewhere than now, or have been idle for long.
func (p *pool) prune(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = slices.DeleteFunc(p.idle, func(u *upstream) bool {
		if p.fresh(u) && now.Sub(u.since) < idleLimit {
			return false
		}
		u.cut()
		return true
	})
}

// resize sets how many connections there may be.
func (p *pool) resize(limit int) {
	p.mu.Lock()
	p.limit = limit
	p.mu.Unlock()
}

// kept is how many wait for a client.
func (p *pool) kept() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

// used is how many are in use.
func (p *pool) used() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.using
}

// close closes the kept ones.
func (p *pool) close() { p.prune(time.Now().Add(2 * idleLimit)) }
