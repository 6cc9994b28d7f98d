package router

import (
	"context"
	"sync"
)

// target is where connections go in an epoch.
type target struct {
	epoch   int64
	writer  string // empty: nobody takes the writes
	address string
	local   bool // the writer is this server
}

// targets holds the current target. Whoever uses it gets a channel that is
// closed when another takes its place.
type targets struct {
	mu      sync.Mutex
	known   bool
	current target
	life    chan struct{}
}

// set makes t current and ends the former, unless they are the same.
func (ts *targets) set(t target) (old target, changed bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	old = ts.current
	if ts.known && t == old {
		return old, false
	}
	close(ts.life)
	ts.current, ts.known, ts.life = t, true, make(chan struct{})
	return old, true
}

// now returns the current target, its lifetime, and whether there was a state.
func (ts *targets) now() (target, <-chan struct{}, bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.current, ts.life, ts.known
}

// wait returns the first target that accept takes, or ctx's error.
func (ts *targets) wait(ctx context.Context, accept func(target) bool) (target, <-chan struct{}, error) {
	for {
		t, life, known := ts.now()
		if known && accept(t) {
			return t, life, nil
		}
		select {
		case <-life:
		case <-ctx.Done():
			return t, life, ctx.Err()
		}
	}
}
