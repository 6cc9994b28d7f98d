package upstream

import (
	"cmp"
	"time"
)

// TargetStatus is what a target is like now.
type TargetStatus struct {
	Name, Address string
	State         string // up, slow-start, unwell, untested, down, ejected or drained
	Why           string // of the state, if it is not up
	Since         time.Time
	Weight        int
	Effective     float64 // weight in force: less in slow start
	InFlight      int64   // requests and tunnels
	Tunnels       int64   // among them
	Kept          int     // unused connections
	Latency       time.Duration
	Requests      uint64    // since the start
	Failures      uint64    // since the start
	Until         time.Time // end of an ejection
}

// condition is the target's state in one word.
func (t *Target) condition(now int64) string {
	state := t.State()
	switch {
	case t.drained.Load():
		return "drained"
	case state == Down:
		return "down"
	case t.ejected.Load() > now:
		return "ejected"
	case state != Up:
		return state.String()
	}
	if p := t.pool.Load(); p != nil && t.slowStart(now, p.Settings()) < 1 {
		return "slow-start"
	}
	return "up"
}

// Status returns what the target is like now.
func (t *Target) Status() TargetStatus {
	t.tell("")
	now := Now()
	t.mu.Lock()
	s := TargetStatus{State: t.told, Why: cmp.Or(t.toldWhy, t.why), Since: t.since, Kept: len(t.kept)}
	t.mu.Unlock()
	s.Name, s.Address = t.config.Name, t.config.Address
	s.Weight, s.InFlight, s.Tunnels = int(t.weight.Load()), t.InFlight(), t.tunnels.Load()
	s.Latency, s.Requests, s.Failures = time.Duration(t.latency.value.Load()), t.requests.Load(), t.failures.Load()
	s.Effective = float64(s.Weight)
	if p := t.pool.Load(); p != nil {
		s.Effective *= t.slowStart(now, p.Settings())
	}
	if until := t.ejected.Load(); until > now {
		s.Until = time.Now().Add(time.Duration(until - now))
	}
	return s
}

// PoolStatus is what a pool is like now.
type PoolStatus struct {
	InFlight int64                 // requests and tunnels with the targets
	Queued   int64                 // requests that wait to enter
	Limit    int                   // that adaptive concurrency sets now; 0: none
	Requests uint64                // since the start
	Outcomes [Cancelled + 1]uint64 // of those that entered
	Retries  uint64
	Shed     uint64 // refused by Enter
}

// Status returns what the pool is like now.
func (p *Pool) Status() PoolStatus {
	s := PoolStatus{
		InFlight: p.InFlight(), Queued: p.gate.length.Load(), Requests: p.requests.Load(),
		Retries: p.retries.Load(), Shed: p.gate.shed.Load(),
	}
	if p.settings.Load().Adaptive {
		s.Limit = int(p.adaptive.limit.Load())
	}
	for i := range s.Outcomes {
		s.Outcomes[i] = p.outcomes[i].Load()
	}
	return s
}
