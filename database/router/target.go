package router

import (
	"context"
	"sync"
	"sync/atomic"
)

// target is where statements go.
type target struct {
	epoch  int64
	server string // empty: nobody takes them
	held   bool   // a switch is being made ready: no transaction may begin
	places []place
}

// place is one way to a database that does, the best one first.
type place struct {
	server  string
	address string
	local   bool // the server is this one
}

func (t target) same(u target) bool { return t.epoch == u.epoch && t.server == u.server }

// targets holds the current target.
type targets struct {
	generation atomic.Uint64 // grows with each change of epoch or server
	held       atomic.Bool

	mu      sync.Mutex
	known   bool
	current target
	changed chan struct{} // closed and replaced with every change
	life    chan struct{} // closed and replaced when generation grows
}

func newTargets() *targets {
	return &targets{changed: make(chan struct{}), life: make(chan struct{})}
}

// set makes t current. It says whether connections to the former are to be given up.
func (ts *targets) set(t target) (old target, changed bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	old = ts.current
	changed = !ts.known || !t.same(old)
	ts.current, ts.known = t, true
	ts.held.Store(t.held)
	close(ts.changed)
	ts.changed = make(chan struct{})
	if changed {
		ts.generation.Add(1)
		close(ts.life)
		ts.life = make(chan struct{})
	}
	return old, changed
}

// aim is a target as it was found.
type aim struct {
	target
	generation uint64
	life       <-chan struct{} // closed when another takes its place
}

// now returns the current target, and whether there was a state.
func (ts *targets) now() (aim, bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.aim(), ts.known
}

func (ts *targets) aim() aim { return aim{ts.current, ts.generation.Load(), ts.life} }

// wait returns the first target that accept takes, or ctx's error.
func (ts *targets) wait(ctx context.Context, accept func(target) bool) (aim, error) {
	for {
		ts.mu.Lock()
		a, known, changed := ts.aim(), ts.known, ts.changed
		ts.mu.Unlock()
		if known && accept(a.target) {
			return a, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return a, ctx.Err()
		}
	}
}
