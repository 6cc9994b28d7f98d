package monitor

import (
	"slices"
	"sync"

	"trivet/internal/overview"
)

// seconds is how many points of each server stay in memory: one hour.
const seconds = 3600

// clockStep is how many seconds a point must lie back to show that the clock was set back.
const clockStep = 30

// Ring holds the newest points of one server, at most an hour of them, by
// their second. A second that was not measured is a gap. It is safe for
// concurrent use.
type Ring struct {
	mu     sync.RWMutex
	points []overview.Point // in order of Time once it wraps around at next
	next   int
}

// Add puts p after the others. A point that is not newer than the newest is
// dropped, unless it is so much older that the clock must have been set back:
// then the ring begins anew.
func (r *Ring) Add(p overview.Point) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.last(); ok && p.Time <= last.Time {
		if p.Time > last.Time-clockStep {
			return
		}
		r.points, r.next = nil, 0
	}
	if len(r.points) < seconds {
		r.points = append(r.points, p)
		return
	}
	r.points[r.next] = p
	r.next = (r.next + 1) % seconds
}

// Last returns the newest point, or false.
func (r *Ring) Last() (overview.Point, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.last()
}

func (r *Ring) last() (overview.Point, bool) {
	n := len(r.points)
	if n == 0 {
		return overview.Point{}, false
	}
	return r.points[(r.next+n-1)%n], true
}

// At returns the point of that second, or false. It looks back from the newest.
func (r *Ring) At(t int64) (overview.Point, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n := len(r.points)
	for i := range n {
		p := r.points[(r.next+n-1-i)%n]
		if p.Time == t {
			return p, true
		}
		if p.Time < t {
			break
		}
	}
	return overview.Point{}, false
}

// After returns the points that are newer than the Unix second t and within
// the last hour before the newest, oldest first.
func (r *Ring) After(t int64) []overview.Point {
	r.mu.RLock()
	defer r.mu.RUnlock()
	last, ok := r.last()
	if !ok {
		return nil
	}
	t = max(t, last.Time-seconds)
	var out []overview.Point
	n := len(r.points)
	for i := range n {
		p := r.points[(r.next+n-1-i)%n]
		if p.Time <= t {
			break
		}
		out = append(out, p)
	}
	slices.Reverse(out)
	return out
}
