package process

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff spaces out repeated attempts: Min, doubled each time, at most Max,
// with up to a quarter of it taken off at random so that three servers do not
// act in step. The zero value is not usable.
type Backoff struct {
	Min, Max time.Duration
	next     time.Duration
}

// Next returns the next interval, for a caller that waits for other things too.
func (b *Backoff) Next() time.Duration {
	if b.next == 0 {
		b.next = b.Min
	}
	d := b.next - time.Duration(rand.Int64N(int64(b.next)/4+1))
	b.next = min(2*b.next, b.Max)
	return d
}

// Wait sleeps for the next interval, or until ctx ends, and returns ctx's error.
func (b *Backoff) Wait(ctx context.Context) error {
	t := time.NewTimer(b.Next())
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reset makes the next interval Min again, after success.
func (b *Backoff) Reset() { b.next = 0 }
