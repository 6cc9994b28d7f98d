package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// State says how far a target can be used, as its checks found. A higher one is always preferred.
type State int32

// The states of a target.
const (
	Down     State = iota // it does not answer: never used
	Untested              // not checked yet: used if none is better
	Unwell                // it answers, but says that it is not well: used if none is better
	Up                    // in service
)

// String names s for logs and reasons.
func (s State) String() string {
	return [...]string{"down", "untested", "unwell", "up"}[s]
}

// Ranks of targets in the choice; Untested and Unwell are alike.
const (
	rankNone    = iota // cannot be chosen
	rankEjected        // visitors met errors there: the last resort
	rankUnwell
	rankUp
)

// TargetConfig is what a target is made of.
type TargetConfig struct {
	// Name is for logs, metrics, messages and sticky visitors.
	Name string
	// Address is for people.
	Address string
	// Dial connects to it; see Dialer.
	Dial func(context.Context) (net.Conn, error)
	// TLS of each connection; nil: plain. A ClientSessionCache in it saves work.
	TLS *tls.Config
	// IdleTimeout is how long an unused connection is kept. It must be shorter
	// than the target's own, else a request may meet a closing connection.
	IdleTimeout time.Duration
	// State to begin with.
	State State
	// Weight is its share of the requests, compared with the others'; zero means one.
	Weight int
}

// Target is one place that requests can be sent to, with its own kept
// connections. It is safe for concurrent use.
type Target struct {
	config TargetConfig
	pool   atomic.Pointer[Pool]

	state    atomic.Int32
	drained  atomic.Bool
	retired  atomic.Bool
	weight   atomic.Int64
	skip     atomic.Int64 // out of the choice until then
	ejected  atomic.Int64 // out until then, by what visitors met
	ramp     atomic.Int64 // when slow start began or will; 0: none
	inFlight atomic.Int64 // requests, those that wait for a connection among them
	tunnels  atomic.Int64
	requests atomic.Uint64
	failures atomic.Uint64
	latency  latency
	passive  passive
	hash     uint64  // of the name
	turn     float64 // of round robin; under Pool.turn

	mu      sync.Mutex
	open    []*Conn   // all but the probe's
	kept    []*Conn   // unused, the last used at the end
	waiting []*waiter // for a connection, the first to come first
	opening int
	reaping bool
	why     string // of the state
	fallen  bool   // it was Down since it was Up
	told    string // condition that was reported last
	toldWhy string
	since   time.Time // of the condition
	probe   probe
}

// NewTarget returns a target; it connects when the first request comes.
func NewTarget(c TargetConfig) *Target {
	t := &Target{config: c, hash: KeyOf(c.Name), since: time.Now()}
	t.state.Store(int32(c.State))
	t.weight.Store(int64(max(c.Weight, 1)))
	t.told = t.condition(Now())
	return t
}

// Name is what the target was called in its TargetConfig.
func (t *Target) Name() string { return t.config.Name }

// Address is where it is, for people.
func (t *Target) Address() string { return t.config.Address }

// InFlight is the number of requests and tunnels that are with the target now.
func (t *Target) InFlight() int64 { return t.inFlight.Load() + t.tunnels.Load() }

// State is what the checks found last.
func (t *Target) State() State { return State(t.state.Load()) }

// SetWeight changes the target's share of the requests; zero means one.
func (t *Target) SetWeight(weight int) { t.weight.Store(int64(max(weight, 1))) }

// SetState changes the state and returns the former one. A target that goes
// Down is ejected: requests that wait for its answer's head are taken back at
// once, and its kept connections are closed.
func (t *Target) SetState(s State, why string) State {
	t.mu.Lock()
	former := State(t.state.Swap(int32(s)))
	t.why = why
	if t.told == s.String() {
		t.toldWhy = why
	}
	t.fallen = t.fallen || s == Down
	if t.fallen && s == Up {
		t.begin(Now())
	}
	t.mu.Unlock()
	if s == Down {
		t.takeBack()
		t.closeKept()
	}
	t.wake()
	t.tell(why)
	return former
}

// begin forgets what was before the target went down, and starts slowly. t.mu is held.
func (t *Target) begin(now int64) {
	t.fallen = false
	t.latency.forget()
	t.passive.errors.Store(0)
	t.ejected.Store(0)
	t.ramp.Store(now)
}

// takeBack interrupts whoever has no answer yet.
func (t *Target) takeBack() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.open {
		if p := c.phase.Load(); p > 0 {
			c.takeBack(p, phaseEjected)
		}
	}
	t.failWaiting(ErrEjected)
}

// Skip takes the target out of the choice for d.
func (t *Target) Skip(d time.Duration) {
	t.skip.Store(Now() + int64(d))
	t.closeKept()
	t.wake()
}

// Drain takes the target out of the choice, or back into it. What is with it ends in its own time.
func (t *Target) Drain(out bool) {
	if t.drained.Swap(out) == out {
		return
	}
	why := "" // of coming back
	if out {
		why = "drained by an operator"
		t.closeKept()
	}
	t.wake()
	t.tell(why)
}

// Retire closes the kept connections of a target that gets no more requests;
// those that are with it end in their own time.
func (t *Target) Retire() {
	t.retired.Store(true)
	t.closeKept()
	t.probe.close()
}

// wake lets those look again who may have waited for this target.
func (t *Target) wake() {
	if p := t.pool.Load(); p != nil {
		p.notify()
		p.admit()
	}
}

// tell reports a change of condition, if there was one. why is of the present one.
func (t *Target) tell(why string) {
	t.mu.Lock()
	from, to := t.told, t.condition(Now())
	if from == to {
		t.mu.Unlock()
		return
	}
	t.told, t.toldWhy, t.since = to, why, time.Now()
	t.mu.Unlock()
	if p := t.pool.Load(); p != nil {
		p.changed(t, from, to, why)
	}
}

// usable returns the rank of the target now; rankNone means not at all.
func (t *Target) usable(now int64, s *Settings) int {
	state := State(t.state.Load())
	switch {
	case state == Down, t.drained.Load(), t.skip.Load() > now:
		return rankNone
	case s.InFlight > 0 && t.inFlight.Load() >= int64(s.InFlight):
		return rankNone
	case t.ejected.Load() > now:
		return rankEjected
	case state == Up:
		return rankUp
	}
	return rankUnwell
}

// slowStart is the part of its weight that counts now, from a tenth to one.
func (t *Target) slowStart(now int64, s *Settings) float64 {
	from := t.ramp.Load()
	if from == 0 || s.SlowStart <= 0 {
		return 1
	}
	gone := float64(now-from) / float64(s.SlowStart)
	if gone >= 1 {
		return 1
	}
	return 0.1 + 0.9*max(gone, 0)
}
