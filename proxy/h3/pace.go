package h3

import (
	"sync/atomic"
	"time"
)

// pace measures how fast a visitor moves while it is waited for, either way.
type pace struct {
	spent atomic.Int64 // nanoseconds
	bytes atomic.Int64
}

// moved counts n bytes that took since began, and says whether the visitor is too slow on average.
func (p *pace) moved(n int, began time.Time, r *Rules) (slow bool) {
	spent := time.Duration(p.spent.Add(int64(time.Since(began))))
	bytes := p.bytes.Add(int64(n))
	return spent > r.Still && float64(bytes) < spent.Seconds()*float64(r.Rate)
}

// Bounds of how much is written under one time limit.
const (
	leastPiece = 4 << 10
	mostPiece  = 64 << 10
)

// piece is how much is written under one time limit: what a visitor takes
// within Still who is just fast enough.
func (r *Rules) piece() int {
	fast := r.Still.Seconds() * float64(r.Rate)
	return int(min(max(fast, leastPiece), mostPiece))
}
