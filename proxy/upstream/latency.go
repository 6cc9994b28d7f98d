package upstream

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// latencyDecay is the time in which an old latency loses most of its say.
const latencyDecay = float64(3 * time.Second)

// latency is the moving average of the time to an answer's head. It rises
// faster than it falls.
type latency struct {
	mu    sync.Mutex
	value atomic.Int64 // nanoseconds; 0: not measured
	at    atomic.Int64
}

// observe adds one measurement.
func (l *latency) observe(now, took int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.value.Load()
	took = max(took, 1)
	switch {
	case old == 0:
		l.value.Store(took)
	case took > old:
		took = min(took, 8*old+int64(time.Millisecond))
		l.value.Store(old + (took-old)/2)
	default:
		w := math.Exp(-float64(max(now-l.at.Load(), 0)) / latencyDecay)
		l.value.Store(max(int64(float64(old)*w+float64(took)*(1-w)), 1))
	}
	l.at.Store(now)
}

func (l *latency) forget() { l.value.Store(0) }
