package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are at most 1.6 % wide.
type histogram struct {
	n       int64
	buckets [(64 - fine) << fine]int64
}

// fine is the number of bits that are kept below the highest.
const fine = 6

func (h *histogram) add(d time.Duration) {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-fine-1, 0)
	h.buckets[uint64(shift)<<fine+v>>shift]++
	h.n++
}

// quantile returns the duration below which the share q lies.
func (h *histogram) quantile(q float64) time.Duration {
	rank, seen := int64(q*float64(h.n)), int64(0)
	for i, n := range h.buckets {
		if seen += n; seen > rank {
			shift := max(i>>fine-1, 0)
			return time.Duration(uint64(i-shift<<fine) << shift)
		}
	}
	return 0
}

func (h *histogram) reset() { *h = histogram{} }
