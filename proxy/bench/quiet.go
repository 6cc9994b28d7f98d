package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"trivet/internal/host"
)

// Others may use so much of a core beside a measurement; if it was more, the
// measurement is made again.
const mostOthers = 0.10

// tick of the clock in /proc/stat, USER_HZ.
const tick = 10 * time.Millisecond

// busy is the time that all cores worked for anybody, or were taken away from
// this machine (proc_stat(5)).
func busy() (time.Duration, error) {
	line, _, _ := strings.Cut(host.Content("/proc/stat"), "\n")
	f := strings.Fields(line)
	if len(f) < 9 {
		return 0, fmt.Errorf("read /proc/stat: %q", line)
	}
	var sum int64
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // all but idle and iowait
		sum += number(f[i])
	}
	return time.Duration(sum) * tick, nil
}

// mine is what this program and those that it has waited for have used.
func mine() time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}

// others returns how many cores were used by others while f ran.
func others(r *running, f func() error) (float64, error) {
	before, err := ledger(r)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := f(); err != nil {
		return 0, err
	}
	took := time.Since(begun)
	after, err := ledger(r)
	return float64(after-before) / float64(took), err
}

// ledger is all that was used but by us.
func ledger(r *running) (time.Duration, error) {
	all, err := busy()
	if err != nil {
		return 0, err
	}
	u, err := r.used()
	return all - mine() - u.cpu, err
}

// undisturbed measures until nobody disturbed it, or b.again times more, and
// returns the sample that was disturbed least.
func (b *bench) undisturbed(ctx context.Context, s scene, r *running) (sample, error) {
	var best sample
	for i := range b.again + 1 {
		var one sample
		beside, err := others(r, func() (err error) { one, err = b.measure(ctx, s, r); return err })
		if err != nil {
			return best, err
		}
		one.Others = max(beside, 0)
		if i == 0 || one.Others < best.Others {
			best = one
		}
		if best.Others <= mostOthers || s.idle { // memory is not disturbed, and is that of a fresh process
			break
		}
	}
	return best, nil
}
