package upstream

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Policy is a way to choose among targets.
type Policy uint8

// The policies.
const (
	EWMA       Policy = iota // of two at random the one that answers faster now
	Least                    // the fewest requests in flight
	RoundRobin               // each in its turn
	Hash                     // the same key goes to the same target, with bounded load
)

var policies = [...]string{"ewma", "least", "round-robin", "hash"}

// String is its name: ewma, least, round-robin or hash.
func (p Policy) String() string { return policies[p] }

// Settings are what a pool works by; they can change at any time.
type Settings struct {
	Targets []*Target
	Policy  Policy
	// Retries bounds how often a safe request that was sent is sent again.
	Retries int
	// RetryStatus tries a safe request elsewhere when the answer is 502, 503 or 504.
	RetryStatus bool
	// Budget is how many retries there may be for each request, 0.2 say, over
	// a floor of ten each second; zero: as many as Retries allows.
	Budget float64
	// Timeout is the longest wait for an answer's head once the request is
	// written; zero: none.
	Timeout time.Duration
	// Patience is how long a request waits in the queue, or for a target when
	// none can be chosen; zero: not at all.
	Patience time.Duration
	// InFlight is the most requests that one target gets at a time; zero: any number.
	InFlight int
	// Queue is how many requests may wait to enter; zero: none.
	Queue int
	// Adaptive bounds the requests that wait for an answer's head by how long those take.
	Adaptive bool
	// Eject is passive health.
	Eject Ejection
	// SlowStart is how long a target that came back gets less than its share; zero: at once.
	SlowStart time.Duration
	// SkipRefused takes a target that cannot be connected to out of the choice
	// for that long; zero: not at all.
	SkipRefused time.Duration
}

// PoolConfig is what a pool is made of. None of its functions may block.
type PoolConfig struct {
	// Suspect is called when a target could not be connected to, broke a
	// connection, or lets a request wait; nil: nobody cares.
	Suspect func(*Target)
	// Changed is called when a target's condition (TargetStatus.State) changed; nil: nobody cares.
	Changed func(t *Target, from, to, why string)
}

// Pool spreads requests over targets. It is safe for concurrent use. A target
// is in one pool at a time.
type Pool struct {
	settings atomic.Pointer[Settings]
	suspect  func(*Target)
	changed  func(t *Target, from, to, why string)

	requests atomic.Uint64 // that asked to enter
	retries  atomic.Uint64
	outcomes [Cancelled + 1]atomic.Uint64
	gate     gate
	budget   budget
	adaptive adaptive
	sweeping atomic.Bool
	judged   int64 // when latencies were last compared; the sweep's own

	turn sync.Mutex // of round robin

	mu      sync.Mutex    // ejections and the wait for a target
	leaving []*Target     // no longer of the settings, but with requests
	waiters int           // in Wait
	wake    chan struct{} // closed when a target may have become usable; nil: nobody waits
}

// NewPool returns an empty pool.
func NewPool(c PoolConfig) *Pool {
	p := &Pool{suspect: c.Suspect, changed: c.Changed}
	if p.suspect == nil {
		p.suspect = func(*Target) {}
	}
	if p.changed == nil {
		p.changed = func(*Target, string, string, string) {}
	}
	p.settings.Store(&Settings{})
	p.adaptive.reset()
	return p
}

// Set changes what the pool works by. Requests under way are not touched;
// targets that are gone are retired.
func (p *Pool) Set(s Settings) {
	s.Targets = slices.Clone(s.Targets)
	for _, t := range s.Targets {
		t.pool.Store(p)
		t.retired.Store(false)
	}
	former := p.settings.Swap(&s)
	for _, t := range former.Targets {
		if !slices.Contains(s.Targets, t) {
			t.Retire()
			p.leaves(t)
		}
	}
	p.notify()
	p.admit()
}

// leaves has t looked after until its last request is over.
func (p *Pool) leaves(t *Target) {
	p.mu.Lock()
	p.leaving = append(p.leaving, t)
	p.mu.Unlock()
	p.sweep()
}

// Settings returns what the pool works by now; it must not be changed.
func (p *Pool) Settings() *Settings { return p.settings.Load() }

// Targets returns the pool's targets.
func (p *Pool) Targets() []*Target { return slices.Clone(p.settings.Load().Targets) }

// InFlight is the number of requests and tunnels that are with all targets now.
func (p *Pool) InFlight() int64 {
	var n int64
	for _, t := range p.settings.Load().Targets {
		n += t.InFlight()
	}
	return n
}

// waitersLimit bounds the requests that wait for a target in one pool; one more fails at once.
const waitersLimit = 2048

// waitLeast is how long Wait takes at least: who waits has just found nothing to
// choose, so what is usable was tried, and is given a moment.
const waitLeast = 20 * time.Millisecond

// Wait returns nil once some target can be chosen. It fails with ErrNoTarget
// when there is none until then or too many wait, or with ctx's cause.
func (p *Pool) Wait(ctx context.Context, until time.Time) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	if !p.queueForTarget() {
		return ErrNoTarget
	}
	defer p.waited()
	pause := time.NewTimer(waitLeast)
	defer pause.Stop()
	for wake := (<-chan struct{})(nil); ; {
		select {
		case <-pause.C:
		case <-wake:
		case <-timer.C:
			return ErrNoTarget
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if wake = p.awaited(); wake == nil {
			return nil
		}
	}
}

// queueForTarget is false when too many wait already.
func (p *Pool) queueForTarget() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiters >= waitersLimit {
		return false
	}
	p.waiters++
	p.sweep()
	return true
}

// awaited returns the channel to wait on, or nil when some target is usable.
func (p *Pool) awaited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.usable(Now()) {
		return nil
	}
	if p.wake == nil {
		p.wake = make(chan struct{})
	}
	return p.wake
}

func (p *Pool) waited() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiters--
}

// usable says whether any target can be chosen.
func (p *Pool) usable(now int64) bool {
	s := p.settings.Load()
	return slices.ContainsFunc(s.Targets, func(t *Target) bool { return t.usable(now, s) > 0 })
}

// notify lets those who wait for a target look again.
func (p *Pool) notify() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wake != nil && p.usable(Now()) {
		close(p.wake)
		p.wake = nil
	}
}
