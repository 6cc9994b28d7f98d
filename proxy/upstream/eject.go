package upstream

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Ejection says when a target that fails visitors is taken out of the choice
// for a while, whatever its checks say.
type Ejection struct {
	Errors int           // no answer, or 502 to 504; each good answer counts one back; 0: none eject
	Slower int           // times the median of the others; 0: any
	For    time.Duration // the first time; longer each time in a row; 0: never
	Most   int           // per cent of the targets that may be out at a time; one may always, of two and more
}

const (
	errorTimes    = 8 // times its latency that an error counts as
	errorLeast    = int64(100 * time.Millisecond)
	ejectMost     = 10                             // times Ejection.For
	outlierTimes  = 20                             // answers by which a target's latency is judged
	outlierLeast  = float64(20 * time.Millisecond) // below, nobody is too slow
	outlierEvery  = int64(time.Second)
	outlierRecent = int64(30 * time.Second) // a median that still counts for the others
)

// passive is what visitors' requests met at a target.
type passive struct {
	errors atomic.Int32 // less the good answers since
	times  spread       // to an answer's head, not judged yet

	// The sweep's own.
	median   float64
	medianAt int64

	// Under Pool.mu.
	row  int // ejections in a row
	long int64
}

// account notes how an exchange went.
func (t *Target) account(c *Conn, o Outcome) {
	p := t.pool.Load()
	switch o {
	case Cancelled:
		return
	case OK:
		t.succeeded(c, p)
		return
	case Broken, Late:
		if p != nil {
			p.suspect(t)
		}
	}
	t.failures.Add(1)
	if o == Broken && c.reused && !c.came {
		return // it was closed while nobody used it: that says little of the target
	}
	t.latency.observe(c.failed())
	if p != nil {
		t.countError(p)
	}
}

// failed is when an error came and what latency it counts as: more than it
// took, or a target that fails fast would be chosen for it.
func (c *Conn) failed() (now, took int64) {
	if c.came {
		return c.used, max(errorTimes*c.took, errorLeast)
	}
	now = Now()
	return now, max(errorTimes*(now-c.used), errorLeast)
}

func (t *Target) succeeded(c *Conn, p *Pool) {
	// One back, not all: a server whose app is broken may still serve its files.
	if n := t.passive.errors.Load(); n > 0 {
		t.passive.errors.CompareAndSwap(n, n-1)
	}
	if p != nil && c.came && c.took > 0 && p.settings.Load().Adaptive {
		p.adaptive.times.add(c.took)
	}
}

// countError ejects the target if there were enough.
func (t *Target) countError(p *Pool) {
	n := int(t.passive.errors.Add(1))
	if limit := p.Settings().Eject.Errors; limit > 0 && n >= limit {
		p.eject(t, fmt.Sprintf("%d errors", n))
	}
}

// eject takes t out of the choice for a while, if the rules allow it.
func (p *Pool) eject(t *Target, why string) {
	now := Now()
	if p.mayEject(t, now) {
		t.tell(why)
	}
}

// mayEject ejects t unless too many are out already or no other is usable.
func (p *Pool) mayEject(t *Target, now int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.settings.Load()
	if s.Eject.For <= 0 || t.ejected.Load() > now || t.State() == Down {
		return false
	}
	out, others := 1, 0
	for _, o := range s.Targets {
		switch {
		case o == t:
		case o.ejected.Load() > now:
			out++
		case o.inService(now):
			others++
		}
	}
	if others == 0 || out > max(len(s.Targets)*s.Eject.Most/100, 1) || s.Eject.Most <= 0 {
		return false
	}
	t.putOut(now, int64(s.Eject.For))
	return true
}

// inService says whether t can be used at all, however busy it is.
func (t *Target) inService(now int64) bool {
	return t.State() != Down && !t.drained.Load() && t.skip.Load() <= now
}

// putOut begins an ejection: longer if the last one has not been over for long.
// Pool.mu is held.
func (t *Target) putOut(now, first int64) {
	e := &t.passive
	if e.row > 0 && now-t.ejected.Load() > 2*e.long {
		e.row = 0
	}
	e.row = min(e.row+1, ejectMost)
	e.long = first * int64(e.row)
	e.errors.Store(0)
	t.latency.forget()
	t.ramp.Store(now + e.long)
	t.ejected.Store(now + e.long)
}

// outliers ejects who answers too slowly compared with the others.
func (p *Pool) outliers(now int64, s *Settings) {
	for _, t := range s.Targets {
		if t.passive.times.n.Load() >= outlierTimes {
			median, _ := t.passive.times.median()
			t.passive.median, t.passive.medianAt = float64(median), now
		}
	}
	for _, t := range s.Targets {
		if own := t.passive.median; t.passive.medianAt == now && s.Eject.Slower > 0 && own > outlierLeast {
			if others := othersMedian(t, now, s); others > 0 && own > others*float64(s.Eject.Slower) {
				p.eject(t, "answers in "+inWords(own)+", the others in "+inWords(others))
			}
		}
	}
}

func inWords(nanoseconds float64) string {
	return time.Duration(nanoseconds).Round(100 * time.Microsecond).String()
}

// othersMedian is the median of the other targets' medians; 0: too little is known.
func othersMedian(t *Target, now int64, s *Settings) float64 {
	var room [16]float64
	others := room[:0]
	for _, o := range s.Targets {
		if o != t && o.passive.median > 0 && now-o.passive.medianAt < outlierRecent && o.ejected.Load() <= now {
			others = append(others, o.passive.median)
		}
	}
	if len(others) == 0 {
		return 0
	}
	slices.Sort(others)
	return (others[(len(others)-1)/2] + others[len(others)/2]) / 2
}
