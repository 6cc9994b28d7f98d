package upstream

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	limitFirst   = 1000.0
	limitLeast   = 100.0 // a moment in which the machine itself is busy must not shed
	limitMost    = 20000.0
	limitWindow  = int64(250 * time.Millisecond)
	limitSamples = 20  // that a window must have
	tolerance    = 2.0 // times the usual latency, above which the limit sinks
	suspicious   = 1.5 // times the usual latency, above which it may be congestion
	recovery     = 4   // times as much growth where there is no congestion in sight
	smoothing    = 0.3 // of one window
	probeFirst   = 8   // windows in a row under pressure, after which the usual latency is measured anew
	probeLast    = 256 // the same, after it was found several times that load is what makes it
	probeWindows = 3   // of measuring: the last counts
	probeGain    = 0.8 // latency at half the load must be below this part, else load is not what makes it
)

// adaptive bounds the requests that wait for an answer's head by what that wait
// is: a gradient of the usual latency over the present one, as in Netflix's
// concurrency-limits, with medians, so that noise and a few long reports are
// not taken for congestion.
//
// It learns only where the number of requests is near the limit: below, latency
// is not of this pool's making, and tells what is usual.
type adaptive struct {
	limit atomic.Int64
	times spread

	// The sweep's own.
	at       int64
	exact    float64
	usual    float64 // latency in nanoseconds; 0: not known
	pressed  int     // windows in a row in which latency was too high
	patience int     // such windows until a measurement
	probing  int     // windows of a measurement that are left
	before   float64 // latency before the measurement
	restored float64 // limit to go back to
}

func (a *adaptive) reset() {
	a.exact, a.patience = limitFirst, probeFirst
	a.limit.Store(limitFirst)
}

// sweep closes a window when its time has come.
func (a *adaptive) sweep(now int64, g *gate) {
	if now-a.at < limitWindow || a.times.n.Load() < limitSamples {
		return
	}
	a.at = now
	median, _ := a.times.median()
	most := g.most.Swap(g.busy())
	a.window(float64(median), float64(most))
	a.limit.Store(int64(a.exact))
}

// window draws the conclusion from one window.
func (a *adaptive) window(latency, most float64) {
	if a.usual == 0 {
		a.usual = latency
	}
	switch near := most*2 >= a.exact; {
	case a.probing > 0:
		a.probe(latency)
	case !near:
		a.pressed = 0
		a.usual += (latency - a.usual) * 0.1
	default:
		a.learn(latency)
		a.move(latency)
	}
}

// learn follows what is usual under load, but not up to what may be
// congestion: a lasting one would become usual.
func (a *adaptive) learn(latency float64) {
	switch {
	case latency < a.usual:
		a.usual += (latency - a.usual) * 0.05
	case latency < suspicious*a.usual:
		a.usual += (latency - a.usual) * 0.02
	}
}

// move changes the limit by the gradient.
func (a *adaptive) move(latency float64) {
	gradient := min(max(tolerance*a.usual/latency, 0.5), 1)
	room := math.Sqrt(a.exact)
	if latency < suspicious*a.usual {
		room *= recovery
	}
	next := a.exact*gradient + room
	a.exact = clamp(a.exact*(1-smoothing) + next*smoothing)
	if latency < suspicious*a.usual {
		a.pressed = 0
		return
	}
	if a.pressed++; a.pressed >= a.patience {
		a.pressed, a.probing = 0, probeWindows
		a.before, a.restored = latency, a.exact
		a.exact = clamp(a.exact / 2)
	}
}

// probe measures at half the load. Where latency does not sink with it, the
// targets have become slower by themselves, and to refuse requests would help
// nobody: that latency is the usual one from now on.
func (a *adaptive) probe(latency float64) {
	if a.probing--; a.probing > 0 {
		return
	}
	a.exact = a.restored
	if latency > probeGain*a.before {
		a.usual, a.patience = latency, probeFirst
		return
	}
	a.patience = min(2*a.patience, probeLast)
	a.usual = min(a.usual, latency)
}

func clamp(limit float64) float64 { return min(max(limit, limitLeast), limitMost) }
