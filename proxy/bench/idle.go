package main

import (
	"context"
	"time"
)

// Connections that are kept without a request, for how long until they are
// looked at, and how many requests a second they begin with: so few that no
// peer needs many connections to its target.
const (
	idleConnections = 5000
	idleSettle      = 6 * time.Second
	idleRate        = 2500
)

// idle measures what a kept connection holds of a peer's memory, each after one request.
func (b *bench) idle(ctx context.Context, v visit, r *running) (sample, error) {
	var s sample
	defer b.loop.leave()
	one := v
	one.n = 1
	if err := b.loop.connect(&one); err != nil {
		return s, err
	}
	if _, _, err := b.loop.visits(ctx, warm, 100); err != nil {
		return s, err
	}
	before, err := r.used()
	if err != nil {
		return s, err
	}
	if err := b.loop.connect(&v); err != nil {
		return s, err
	}
	if _, _, err := b.loop.visits(ctx, time.Duration(v.n)*time.Second/idleRate, idleRate); err != nil {
		return s, err
	}
	if err := b.loop.aside(func() error { return pause(ctx, idleSettle) }); err != nil {
		return s, err
	}
	after, err := r.used()
	s.RSS = float64(after.rss) / 1e6
	s.Memory = float64(after.pss-before.pss) / float64(v.n) / 1e3
	return s, err
}
