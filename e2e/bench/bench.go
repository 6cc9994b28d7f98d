package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"trivet/e2e"
	"trivet/e2e/measure"
)

// Goals of the first release.
const (
	goalIdle   = 5.0   // percent of one core, all trivet processes of the three servers
	goalMemory = 150.0 // MB, the trivet processes of one server
	goalUp     = 45.0  // seconds, nothing there
	goalAgain  = 20.0  // seconds, the second time
	goalResume = 5.0   // seconds until posts are acknowledged again
)

const (
	rate   = 200              // requests a second
	settle = 10 * time.Second // after the lab is up, or whole again
	steady = 15 * time.Second // for which the cost of a request is measured
)

// bench is one run.
type bench struct {
	lab    *e2e.Lab
	idle   time.Duration
	report measure.Report
}

// measure makes the lab, and leaves it running.
func (b *bench) measure(ctx context.Context) error {
	var err error
	if b.report.Machine, err = measure.Look(ctx, b.lab); err != nil {
		return err
	}
	if _, err := b.lab.Run(ctx, "down"); err != nil { // what an interrupted run left
		return err
	}
	for _, step := range []func(context.Context) error{b.bringUp, b.watchIdle, b.request, b.faults, b.memoryAfter} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// say tells who waits what is going on.
func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) }

// bringUp measures `trivet up` in the four states that it finds a machine in.
func (b *bench) bringUp(ctx context.Context) error {
	const group = "bring-up (trivet up)"
	for _, c := range []struct {
		name string
		down []string
		goal float64
	}{
		{"nothing there", nil, goalUp},
		{"after down", []string{"down"}, goalAgain},
		{"after down --keep-data", []string{"down", "--keep-data"}, goalAgain},
		{"running already", nil, goalAgain},
	} {
		say("up: %s", c.name)
		if c.down != nil {
			if _, err := b.lab.Run(ctx, c.down...); err != nil {
				return err
			}
		}
		begun := time.Now()
		if _, err := b.lab.Up(ctx); err != nil {
			return err
		}
		b.report.Add(group, c.name, time.Since(begun).Seconds(), measure.Seconds, c.goal)
	}
	return nil
}

// watchIdle measures what the lab costs while nobody visits.
func (b *bench) watchIdle(ctx context.Context) error {
	say("idle for %s", b.idle)
	cpu, after, elapsed, err := b.during(ctx, func() error {
		return pause(ctx, b.idle)
	}, settle)
	if err != nil {
		return err
	}
	const group = "idle, three servers together"
	percent := func(d time.Duration) float64 { return 100 * d.Seconds() / elapsed.Seconds() }
	b.report.Add(group, "all trivet processes", percent(measure.OfTrivet(cpu)), measure.Percent, goalIdle)
	for _, kind := range measure.TrivetKinds {
		b.report.Add(group, "  "+kind, percent(cpu[kind]), measure.Percent, 0)
	}
	b.report.Add(group, "app", percent(cpu[measure.KindApp]), measure.Percent, 0)
	b.report.Add(group, "mariadbd", percent(cpu[measure.KindDatabase]), measure.Percent, 0)
	b.memory("memory of an idle server (PSS)", after)
	return nil
}

// during runs f, after a pause, and returns what each kind of process spent in the meantime.
func (b *bench) during(ctx context.Context, f func() error, first time.Duration) (map[string]time.Duration, map[int]measure.Process, time.Duration, error) {
	if err := pause(ctx, first); err != nil {
		return nil, nil, 0, err
	}
	before, err := measure.Processes(ctx, b.lab)
	if err != nil {
		return nil, nil, 0, err
	}
	begun := time.Now()
	if err := f(); err != nil {
		return nil, nil, 0, err
	}
	elapsed := time.Since(begun)
	after, err := measure.Processes(ctx, b.lab)
	return measure.Spent(before, after), after, elapsed, err
}

func (b *bench) memory(group string, all map[int]measure.Process) {
	const mb = 1e6
	for _, server := range e2e.Servers {
		trivet, app, database := measure.Memory(all, server)
		b.report.Add(group, server+" trivet processes", float64(trivet)/mb, measure.Megabytes, goalMemory)
		b.report.Add(group, server+" app", float64(app)/mb, measure.Megabytes, 0)
		b.report.Add(group, server+" mariadbd", float64(database)/mb, measure.Megabytes, 0)
	}
}

func (b *bench) memoryAfter(ctx context.Context) error {
	all, err := measure.Processes(ctx, b.lab)
	if err != nil {
		return err
	}
	b.memory("memory of a server after load and faults (PSS)", all)
	return nil
}

// request measures what a request costs, all servers together.
func (b *bench) request(ctx context.Context) error {
	say("%d requests a second for %s", rate, steady)
	l, err := b.load()
	if err != nil {
		return err
	}
	cpu, _, _, err := b.during(ctx, func() error {
		limited, cancel := context.WithTimeout(ctx, steady)
		defer cancel()
		l.Run(limited)
		return ctx.Err()
	}, 0)
	if err != nil {
		return err
	}
	n := l.Gets + len(l.Acked)
	if n == 0 {
		return fmt.Errorf("no request of the load was answered: %v", l.Failed[:min(1, len(l.Failed))])
	}
	group := fmt.Sprintf("CPU per request at %d/s, idle cost included", rate)
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(n) }
	b.report.Add(group, "all trivet processes", each(measure.OfTrivet(cpu)), measure.PerRequest, 0)
	for _, kind := range measure.TrivetKinds[1:] {
		b.report.Add(group, "  "+kind, each(cpu[kind]), measure.PerRequest, 0)
	}
	b.report.Add(group, "app", each(cpu[measure.KindApp]), measure.PerRequest, 0)
	b.report.Add(group, "mariadbd", each(cpu[measure.KindDatabase]), measure.PerRequest, 0)
	return nil
}

// load describes the stream of requests; nothing is sent yet.
func (b *bench) load() (*e2e.Load, error) {
	c, err := b.lab.Visitor(b.lab.Floating())
	if err != nil {
		return nil, err
	}
	return &e2e.Load{Client: c, Rate: rate, Tag: fmt.Sprintf("bench-%d", time.Now().UnixNano())}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
