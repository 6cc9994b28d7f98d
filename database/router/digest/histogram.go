package digest

import (
	"math"
	"slices"
	"time"
)

// Buckets of a histogram: a bucket ends at two to the power of half of its
// number, in seconds, as in Prometheus's native histograms of schema 1. The
// first has all that was faster, the last all that was slower.
const (
	Schema      = 1
	firstBucket = -32 // 15 µs
	lastBucket  = 10  // 32 s
	buckets     = lastBucket - firstBucket + 1
)

// bounds are the buckets' ends but the last one's, in nanoseconds.
var bounds = func() (all [buckets - 1]int64) {
	for i := range all {
		all[i] = int64(math.Exp2(float64(firstBucket+i)/2) * 1e9)
	}
	return all
}()

// histogram counts by bucket.
type histogram [buckets]uint64

func (h *histogram) add(d time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], int64(d))
	h[i]++
}

// Bucket is one of a histogram that is not empty.
type Bucket struct {
	Number int    `json:"number"` // it ends at 2^(number/2) seconds
	Count  uint64 `json:"count"`
}

// list returns the buckets that are not empty, the fastest first.
func (h *histogram) list() []Bucket {
	var all []Bucket
	for i, n := range h {
		if n > 0 {
			all = append(all, Bucket{firstBucket + i, n})
		}
	}
	return all
}

// Quantile is the time that a share q of the statements did not take longer
// than, as closely as the buckets tell: within 20 %.
func Quantile(all []Bucket, q float64) time.Duration {
	var sum, before uint64
	for _, b := range all {
		sum += b.Count
	}
	wanted := q * float64(sum)
	for i, b := range all {
		if float64(before+b.Count) >= wanted || i == len(all)-1 {
			share := (wanted - float64(before)) / float64(b.Count)
			return time.Duration(math.Exp2((float64(b.Number)-1+share)/2) * 1e9)
		}
		before += b.Count
	}
	return 0
}

// mergeBuckets adds two lists.
func mergeBuckets(a, b []Bucket) []Bucket {
	var h histogram
	for _, all := range [][]Bucket{a, b} {
		for _, b := range all {
			h[min(max(b.Number-firstBucket, 0), buckets-1)] += b.Count
		}
	}
	return h.list()
}
