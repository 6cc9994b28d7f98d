package main

import (
	"context"
	"fmt"
	"time"
)

// load is one way of asking.
type load interface {
	// closed asks as fast as answers come, for a while after d has begun. It
	// calls mark when what is measured begins and when it ends, and returns the
	// number of requests between, and how long that took.
	closed(ctx context.Context, d time.Duration, mark func() error) (n int64, took time.Duration, err error)
	// paced asks rate times a second and returns two quantiles of the time until the answer.
	paced(ctx context.Context, d time.Duration, rate float64) (p50, p99 time.Duration, err error)
	// leave closes what is still open.
	leave()
}

// warm is for how long is asked before anything is measured.
const warm = 300 * time.Millisecond

// kept is the load of visitors who keep their connections.
type kept struct{ *loop }

func (k kept) closed(ctx context.Context, d time.Duration, mark func() error) (int64, time.Duration, error) {
	if _, _, err := k.visits(ctx, warm, 0); err != nil {
		return 0, 0, err
	}
	if err := mark(); err != nil {
		return 0, 0, err
	}
	begun := time.Now()
	_, n, err := k.visits(ctx, d, 0)
	if err != nil {
		return 0, 0, err
	}
	took := time.Since(begun)
	return n, took, mark()
}

func (k kept) paced(ctx context.Context, d time.Duration, rate float64) (p50, p99 time.Duration, err error) {
	if _, _, err := k.visits(ctx, d, rate); err != nil {
		return 0, 0, err
	}
	return k.times.quantile(0.5), k.times.quantile(0.99), nil
}

// sample is what one round finds of one peer.
type sample struct {
	Rate     float64 `json:"requests_per_second"`
	CPU      float64 `json:"cpu_us"` // for each request
	User     float64 `json:"user_us"`
	P50, P99 float64 `json:"-"`      // ms, at share of the rate
	RSS      float64 `json:"rss_mb"` // after the load
	Memory   float64 `json:"kb_per_connection"`
}

// share of its own highest rate at which a peer's times are taken.
const share = 0.7

// round measures one peer.
func (b *bench) round(ctx context.Context, l load, r *running) (sample, error) {
	defer l.leave()
	var s sample
	var looks []usage
	n, took, err := l.closed(ctx, b.full, func() error {
		u, err := r.used()
		looks = append(looks, u)
		return err
	})
	if err != nil {
		return s, err
	}
	if n == 0 {
		return s, fmt.Errorf("no request was answered")
	}
	s.Rate = float64(n) / took.Seconds()
	s.CPU, s.User = looks[1].since(looks[0], n)
	s.RSS = float64(looks[1].rss) / 1e6
	p50, p99, err := l.paced(ctx, b.calm, s.Rate*share)
	s.P50, s.P99 = p50.Seconds()*1e3, p99.Seconds()*1e3
	return s, err
}
