package upstream

import (
	"slices"
	"time"
)

// A request that waits longer than lateAfter for its answer's head makes its
// target suspect, again each lateEvery: so a frozen server is noticed by the
// requests that hang on it, not by the next regular check.
const (
	lateAfter = 150 * time.Millisecond
	lateEvery = 500 * time.Millisecond
	step      = 50 * time.Millisecond // between two looks
)

// sweep sees to it that the pool is swept while something is under way.
func (p *Pool) sweep() {
	if !p.sweeping.Load() && p.sweeping.CompareAndSwap(false, true) {
		go p.keepSweeping()
	}
}

func (p *Pool) keepSweeping() {
	for {
		time.Sleep(step)
		if p.sweepOnce(Now()) {
			continue
		}
		p.sweeping.Store(false)
		if !p.busy() || !p.sweeping.CompareAndSwap(false, true) {
			return
		}
	}
}

// busy says whether there is anything to look after.
func (p *Pool) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiters > 0 || p.gate.inside.Load() > 0 {
		return true
	}
	return slices.ContainsFunc(p.settings.Load().Targets, working) || slices.ContainsFunc(p.leaving, working)
}

func working(t *Target) bool { return t.inFlight.Load() > 0 }

// sweepOnce looks at everything once, and returns whether the pool is busy.
func (p *Pool) sweepOnce(now int64) bool {
	s := p.settings.Load()
	for _, t := range s.Targets {
		p.sweepTarget(t, now, s)
	}
	for _, t := range p.stillLeaving() {
		p.sweepTarget(t, now, s)
	}
	if now-p.judged >= outlierEvery {
		p.judged = now
		p.outliers(now, s)
		for _, t := range s.Targets {
			t.tell("")
		}
	}
	if s.Adaptive {
		p.adaptive.sweep(now, &p.gate)
	}
	p.gate.expire(now)
	p.notify()
	p.admit()
	return p.busy()
}

// stillLeaving returns the targets that were taken out of the settings and
// still have requests.
func (p *Pool) stillLeaving() []*Target {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving = slices.DeleteFunc(p.leaving, func(t *Target) bool { return !working(t) })
	return slices.Clone(p.leaving)
}

func (p *Pool) sweepTarget(t *Target, now int64, s *Settings) {
	if working(t) && t.sweep(now, s.Timeout) {
		p.suspect(t)
	}
}

// sweep interrupts who has waited too long for an answer's head, and returns
// whether the target is suspect.
func (t *Target) sweep(now int64, timeout time.Duration) (suspect bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.open {
		p := c.phase.Load()
		if p <= phaseBegun {
			continue
		}
		waited := time.Duration(now - p)
		switch {
		case timeout > 0 && waited >= timeout:
			c.takeBack(p, phaseLate)
		case waited >= lateAfter && now >= c.late:
			c.late = now + int64(lateEvery)
			suspect = true
		}
	}
	return suspect
}
