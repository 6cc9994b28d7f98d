package upstream

import (
	"math"
	"math/rand/v2"
	"time"
)

const (
	latencyDecay = float64(3 * time.Second)        // in which a latency loses most of its say
	latencyFresh = int64(time.Second)              // an older measurement fades
	latencyFloor = float64(200 * time.Microsecond) // added to each: differences below are noise
	nearlyAlike  = 1.5                             // loads that differ by less are decided by weight alone
)

// faster takes two candidates at random and of them the one with the lesser load.
func (f *field) faster() *Target {
	var two [2]*Target
	n := 0
	for _, t := range f.settings.Targets {
		if !f.candidate(t) {
			continue
		}
		if n < 2 {
			two[n] = t
		} else if i := rand.IntN(n + 1); i < 2 {
			two[i] = t
		}
		n++
	}
	if two[1] == nil {
		return two[0]
	}
	return f.lesser(two[0], two[1])
}

// lesser compares loads, latency × (requests in flight + 1) / weight. Where
// they are nearly alike without the weights, chance decides by these: else an
// idle pool would send all to the heaviest target.
func (f *field) lesser(a, b *Target) *Target {
	la, lb := f.loads(a, b)
	wa, wb := float64(a.weight.Load()), float64(b.weight.Load())
	if la < lb*nearlyAlike && lb < la*nearlyAlike {
		if rand.Float64()*(wa+wb) < wa {
			return a
		}
		return b
	}
	if la*wb < lb*wa {
		return a
	}
	return b
}

// loads returns latency × (requests in flight + 1) of both. A target of which
// nothing is known, or nothing new, counts as no better than the other, and
// all the less so the more it already has to prove it with: it is explored,
// not flooded.
func (f *field) loads(a, b *Target) (la, lb float64) {
	la, freshA := a.latency.read(f.now)
	lb, freshB := b.latency.read(f.now)
	na, nb := float64(a.inFlight.Load()+1), float64(b.inFlight.Load()+1)
	if !freshA && (freshB || la == 0) && la <= lb {
		la, na = lb, na*na
	} else if !freshB && (freshA || lb == 0) && lb <= la {
		lb, nb = la, nb*nb
	}
	return (la + latencyFloor) * na, (lb + latencyFloor) * nb
}

// observe adds one measurement. The average rises faster than it falls, but a
// single outlier does not carry it away: one long report among short requests
// says little.
func (l *latency) observe(now, took int64) {
	took = max(took, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.value.Load()
	switch {
	case old == 0:
	case took > old:
		took = old + (min(took, 8*old+int64(time.Millisecond))-old)/2
	default:
		gone := float64(max(now-l.at.Load(), 0)) + float64(took) // a slow answer tells of a longer time
		w := math.Exp(-gone / latencyDecay)
		took = max(int64(float64(old)*w+float64(took)*(1-w)), 1)
	}
	l.value.Store(took)
	l.at.Store(now)
}

// read returns the average, which fades when nothing new is measured, and
// whether it is fresh; 0: never measured.
func (l *latency) read(now int64) (value float64, fresh bool) {
	value = float64(l.value.Load())
	age := now - l.at.Load()
	if age <= latencyFresh {
		return value, value > 0
	}
	return value * math.Exp(-float64(age)/latencyDecay), false
}

func (l *latency) forget() { l.value.Store(0) }
