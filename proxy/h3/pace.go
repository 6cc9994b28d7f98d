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
func (p *pace) moved(n int, began time.Time, c *Config) (slow bool) {
	spent := time.Duration(p.spent.Add(int64(time.Since(began))))
	bytes := p.bytes.Add(int64(n))
	return spent > c.Still && float64(bytes) < spent.Seconds()*float64(c.Rate)
}

// Bounds of how much is written under one time limit.
const (
	leastPiece = 4 << 10
	mostPiece  = 64 << 10
)

// piece is how much is written under one time limit: what a visitor takes
// within Still who is just fast enough.
func (c *Config) piece() int {
	fast := c.Still.Seconds() * float64(c.Rate)
	return int(min(max(fast, leastPiece), mostPiece))
}
