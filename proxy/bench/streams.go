package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// streams is the load of h2load(1): visitors with HTTP/2.
type streams struct {
	loop    *loop
	port    int
	clients int
	each    int // requests at a time on each connection
	dir     string
}

func (s *streams) leave() {}

// run runs h2load for d, which it takes in whole seconds, and f meanwhile.
func (s *streams) run(ctx context.Context, d time.Duration, f func() error, more ...string) error {
	return s.loop.aside(func() error {
		seconds := int(math.Ceil(d.Seconds()))
		ctx, cancel := context.WithTimeout(ctx, d+patience)
		defer cancel()
		args := append([]string{"-c", strconv.Itoa(s.clients), "-m", strconv.Itoa(s.each), "-D", strconv.Itoa(seconds)}, more...)
		cmd := exec.CommandContext(ctx, "h2load", append(args, "https://"+address(s.port)+"/small")...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("start h2load: %w", err)
		}
		err := f()
		if ended := cmd.Wait(); ended != nil {
			return fmt.Errorf("run h2load: %w: %s", ended, out.String())
		}
		if !strings.Contains(out.String(), " 0 failed, 0 errored, 0 timeout") || !strings.Contains(out.String(), "Application protocol: h2") {
			return fmt.Errorf("requests by h2load have failed: %s", out.String())
		}
		return err
	})
}

func (s *streams) closed(ctx context.Context, d time.Duration, mark func() error) (n int64, took time.Duration, err error) {
	err = s.run(ctx, d+warm, func() (err error) {
		n, took, err = between(ctx, d, s.loop.served.Load, mark)
		return err
	})
	return n, took, err
}

// paced takes the times of h2load's log; they count from when h2load has sent a
// request, not from when it should have.
func (s *streams) paced(ctx context.Context, d time.Duration, rate float64) (p50, p99 time.Duration, err error) {
	path := filepath.Join(s.dir, "h2load.log")
	_ = os.Remove(path) // h2load appends
	each := strconv.FormatFloat(rate/float64(s.clients), 'f', 1, 64)
	if err := s.run(ctx, d, func() error { return nil }, "--rps", each, "--log-file", path); err != nil {
		return 0, 0, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, fmt.Errorf("read h2load's log: %w", err)
	}
	times := &histogram{}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 3 {
			times.add(time.Duration(number(f[2])) * time.Microsecond)
		}
	}
	return times.quantile(0.5), times.quantile(0.99), nil
}
