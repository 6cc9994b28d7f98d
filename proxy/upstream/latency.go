package upstream

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// latency is the moving average of a target's time to an answer's head, peak
// EWMA: see choose_ewma.go.
type latency struct {
	mu    sync.Mutex
	value atomic.Int64 // nanoseconds; 0: not measured
	at    atomic.Int64
}

// spread counts times by their size, four classes for each doubling. A median
// of it is right to 10 % and is not impressed by outliers.
type spread struct {
	n       atomic.Int64
	classes [classes]atomic.Int32
}

const (
	classShift = 14 // times below 16 µs are one class
	classes    = 4 * 26
)

func classOf(took int64) int {
	v := uint64(max(took, 0)) >> (classShift - 2)
	if v < 4 {
		return 0
	}
	top := bits.Len64(v) - 1 // ≥ 2
	return min((top-2)*4+int(v>>(top-2)&3), classes-1)
}

// middle is a time in the middle of class i.
func middle(i int) time.Duration {
	low := int64(4+i%4) << (i / 4) << (classShift - 2)
	return time.Duration(low + low/int64(2*(4+i%4)))
}

func (s *spread) add(took int64) {
	s.classes[classOf(took)].Add(1)
	s.n.Add(1)
}

// median returns the median of what was counted and how much that was, and begins anew.
func (s *spread) median() (time.Duration, int) {
	var counts [classes]int32
	total := int32(0)
	for i := range s.classes {
		counts[i] = s.classes[i].Swap(0)
		total += counts[i]
	}
	s.n.Store(0)
	sum := int32(0)
	for i, n := range counts {
		if sum += n; n > 0 && sum*2 >= total {
			return middle(i), int(total)
		}
	}
	return 0, 0
}
