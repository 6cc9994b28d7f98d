package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// fresh is the load of visitors who come on a new TLS connection each time.
type fresh struct {
	loop    *loop
	port    int
	config  *tls.Config
	request []byte
	resume  bool
}

// Visitors at a time: for the highest rate, and where a request may have to wait for its turn.
const (
	freshVisitors = 16
	freshPlaces   = 64
)

func (f *fresh) leave() {}

func (f *fresh) closed(ctx context.Context, d time.Duration, mark func() error) (int64, time.Duration, error) {
	var done atomic.Int64
	var n int64
	var took time.Duration
	err := f.during(ctx, freshVisitors, func(come func() error) error {
		if err := come(); err != nil {
			return err
		}
		done.Add(1)
		return nil
	}, func() (err error) {
		n, took, err = between(ctx, d, done.Load, mark)
		return err
	})
	return n, took, err
}

// between counts what is done from one mark to the other.
func between(ctx context.Context, d time.Duration, count func() int64, mark func() error) (int64, time.Duration, error) {
	if err := pause(ctx, warm); err != nil {
		return 0, 0, err
	}
	if err := mark(); err != nil {
		return 0, 0, err
	}
	first, begun := count(), time.Now()
	if err := pause(ctx, d); err != nil {
		return 0, 0, err
	}
	n, took := count()-first, time.Since(begun)
	return n, took, mark()
}

func (f *fresh) paced(ctx context.Context, d time.Duration, rate float64) (p50, p99 time.Duration, err error) {
	var turn atomic.Int64
	var mu sync.Mutex
	times := &histogram{}
	begun := time.Now()
	err = f.during(ctx, freshPlaces, func(come func() error) error {
		due := begun.Add(time.Duration(float64(turn.Add(1)) / rate * float64(time.Second)))
		if err := pause(ctx, time.Until(due)); err != nil {
			return err
		}
		if err := come(); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		times.add(time.Since(due))
		return nil
	}, func() error { return pause(ctx, d) })
	return times.quantile(0.5), times.quantile(0.99), err
}

// during lets n visitors come again and again while f runs.
func (f *fresh) during(ctx context.Context, n int, each func(come func() error) error, until func() error) error {
	return f.loop.aside(func() error {
		var over atomic.Bool
		var wg sync.WaitGroup
		errs := make([]error, n)
		for i := range n {
			come := f.visitor()
			wg.Go(func() {
				for errs[i] == nil && !over.Load() {
					errs[i] = each(come)
				}
			})
		}
		err := until()
		over.Store(true)
		wg.Wait()
		return errors.Join(append(errs, err)...)
	})
}

// visitor returns what one of them does each time. It has its own tickets.
func (f *fresh) visitor() func() error {
	config := f.config.Clone()
	if f.resume {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	first := true
	answer := make([]byte, 4096)
	return func() error {
		resumed, err := f.come(config, answer)
		if err == nil && resumed != (f.resume && !first) {
			err = fmt.Errorf("resumed: %t, of a visitor who comes for the first time: %t", resumed, first)
		}
		first = false
		return err
	}
}

// come makes one connection with one request.
func (f *fresh) come(config *tls.Config, answer []byte) (resumed bool, err error) {
	plain, err := net.DialTimeout("tcp", address(f.port), patience)
	if err != nil {
		return false, err
	}
	defer func() { _ = plain.Close() }()
	if err := plain.SetDeadline(time.Now().Add(patience)); err != nil {
		return false, err
	}
	c := tls.Client(plain, config)
	if _, err := c.Write(f.request); err != nil {
		return false, fmt.Errorf("ask on a new connection: %w", err)
	}
	n, err := io.ReadFull(c, answer)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, fmt.Errorf("an answer of %d bytes and more: %w", n, err)
	}
	if _, err := bodyLength(answer[:n]); err != nil {
		return false, err
	}
	return c.ConnectionState().DidResume, nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// threads lets the loop and those who make handshakes run beside each other on one core.
func threads() { runtime.GOMAXPROCS(4) }
