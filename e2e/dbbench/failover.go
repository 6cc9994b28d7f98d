package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"trivet/e2e"
	"trivet/e2e/measure"
)

const (
	times     = 5 // each fault happens so often
	ackEvery  = 2 * time.Millisecond
	before    = time.Second     // under load, before the fault
	after     = 4 * time.Second // for what comes later
	perServer = 2               // clients
)

// failure is one thing that happens to the writer.
type failure struct {
	name string
	goal float64 // seconds without an acknowledged write
	with bool    // the writer's own server goes on: its clients are asked too
	do   func(ctx context.Context, b *bench, writer string) error
	mend func(ctx context.Context, b *bench, writer string) error
}

var failures = []failure{
	{"kill -9 of the writer's mariadbd", 0.15, true, killDatabase, nil},
	{"power off of the writer's server", 1.5, false, byLab("kill"), byLab("start")},
	{"the writer's cable unplugged", 1.5, false, byLab("cut"), byLab("heal")},
	{"planned switch (trivet db switch)", 0.4, true, planned, nil},
}

func killDatabase(ctx context.Context, b *bench, writer string) error {
	all, err := measure.Processes(ctx, b.lab)
	if err != nil {
		return err
	}
	for pid, p := range all {
		if p.Server == writer && p.Kind == measure.KindDatabase {
			return syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return fmt.Errorf("%s has no mariadbd", writer)
}

func byLab(verb string) func(context.Context, *bench, string) error {
	return func(ctx context.Context, b *bench, writer string) error {
		_, err := b.lab.Run(ctx, "lab", verb, writer)
		return err
	}
}

func planned(ctx context.Context, b *bench, _ string) error {
	_, err := b.lab.Run(ctx, "db", "switch")
	return err
}

// failovers measures how long writes pause.
func (b *bench) failovers(ctx context.Context) error {
	for _, f := range failures {
		var gaps []float64
		var errs, missing int
		for i := range times {
			say("%s, %d of %d", f.name, i+1, times)
			gap, failed, lost, err := b.fail(ctx, f)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			gaps, errs, missing = append(gaps, gap.Seconds()), errs+failed, missing+lost
		}
		slices.Sort(gaps)
		group := fmt.Sprintf("%s, %d times", f.name, times)
		b.report.Add(group, "longest time without an acknowledged insert, worst", gaps[len(gaps)-1], measure.Seconds, f.goal)
		b.report.Add(group, "the same, median", gaps[len(gaps)/2], measure.Seconds, f.goal)
		b.report.Add(group, "inserts that failed", float64(errs), measure.Errors, 0)
		b.report.Add(group, "acknowledged rows missing", float64(missing), measure.Rows, 0)
	}
	return nil
}

// fail has f happen once, and waits until all is whole again.
func (b *bench) fail(ctx context.Context, f failure) (gap time.Duration, failed, missing int, err error) {
	if _, err := b.synced(ctx, len(e2e.Servers), e2e.Servers...); err != nil {
		return 0, 0, 0, err
	}
	writer, err := b.writer(ctx)
	if err != nil {
		return 0, 0, 0, err
	}
	asked := slices.DeleteFunc(slices.Clone(e2e.Servers), func(s string) bool { return s == writer && !f.with })
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	streams := make([]*stream, len(asked))
	for i, server := range asked {
		streams[i] = &stream{b: b, server: server, number: int64(i)}
		wg.Go(func() { streams[i].run(loading) })
	}
	begun, err := b.under(ctx, f, writer)
	stop()
	wg.Wait()
	for _, s := range streams {
		gap = max(gap, e2e.Longest(s.acked, begun, begun.Add(after)))
		failed += s.failed
	}
	if f.mend != nil {
		err = errors.Join(err, f.mend(ctx, b, writer))
	}
	if err != nil {
		return 0, 0, 0, err
	}
	missing, err = b.missing(ctx, streams)
	return gap, failed, missing, err
}

// under has f happen under the load that runs, and says when it began.
func (b *bench) under(ctx context.Context, f failure, writer string) (time.Time, error) {
	if err := pause(ctx, before); err != nil {
		return time.Time{}, err
	}
	begun := time.Now()
	if err := f.do(ctx, b, writer); err != nil {
		return begun, err
	}
	return begun, pause(ctx, time.Until(begun.Add(after)))
}

// stream is what the clients of one server insert.
type stream struct {
	b      *bench
	server string
	number int64

	mu     sync.Mutex
	next   int64
	acked  []time.Time
	ids    []int64
	failed int
}

func (s *stream) run(ctx context.Context) {
	s.next = time.Now().UnixNano()/10*10 + s.number // no two streams have a number in common
	var wg sync.WaitGroup
	for range perServer {
		wg.Go(func() { s.client(ctx) })
	}
	wg.Wait()
}

func (s *stream) client(ctx context.Context) {
	db, err := s.b.open(s.b.router("router", s.server))
	if err != nil {
		return
	}
	defer func() { _ = db.Close() }()
	for pause(ctx, ackEvery) == nil {
		s.mu.Lock()
		s.next += 10
		id := s.next
		s.mu.Unlock()
		_, err := db.ExecContext(context.WithoutCancel(ctx), "INSERT INTO bench_ack VALUES (?)", id)
		s.mu.Lock()
		if err != nil {
			s.failed++
			say("  an insert on %s failed: %v", s.server, err)
		} else {
			s.acked, s.ids = append(s.acked, time.Now()), append(s.ids, id)
		}
		s.mu.Unlock()
	}
}

// missing counts rows that were acknowledged and are not there.
func (b *bench) missing(ctx context.Context, streams []*stream) (int, error) {
	writer, err := b.writer(ctx)
	if err != nil {
		return 0, err
	}
	db, err := b.open(b.router("router", writer))
	if err != nil {
		return 0, err
	}
	defer func() { _ = db.Close() }()
	found, err := db.QueryContext(ctx, "SELECT id FROM bench_ack")
	if err != nil {
		return 0, err
	}
	defer func() { _ = found.Close() }()
	there := map[int64]bool{}
	for found.Next() {
		var id int64
		if err := found.Scan(&id); err != nil {
			return 0, err
		}
		there[id] = true
	}
	missing := 0
	for _, s := range streams {
		for _, id := range s.ids {
			if !there[id] {
				missing++
			}
		}
	}
	return missing, found.Err()
}
