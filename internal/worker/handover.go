package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"trivet/internal/pace"
	"trivet/internal/process"
)

const (
	readyLimit  = 30 * time.Second // for a new process to be as healthy as the one that it replaces
	yieldLimit  = packetGrace + time.Second
	retireLimit = 4                // former processes at a time; one more, and the oldest is ended
	aloneGrace  = 10 * time.Second // for a process that has to end before its successor starts
)

// Replace puts a new process of the worker's executable in the place of the
// one that serves, and returns when the new one is in charge.
//
// Both have the same listening sockets, so that no connection is refused. The
// new one is in charge once it has applied the newest state and is healthy, or
// as healthy as the old one. That then gets SIGTERM, and ends by itself with
// its last connection; it gets no more states, for its connections need none:
// those to the web servers and to the app stand, and none is made anew.
//
// If the new one is not ready in time the old one stays in charge, and Replace
// and Status say why.
func (w *Worker) Replace(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case w.orders <- done:
	case <-ctx.Done():
		return fmt.Errorf("replace worker %s: %w", w.cfg.Name, ctx.Err())
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("replace worker %s: %w", w.cfg.Name, ctx.Err())
	}
}

// replace does what Replace ordered.
func (w *Worker) replace(ctx context.Context, old *instance, done chan<- error) *instance {
	now, err := w.handOver(ctx, old)
	failed := ""
	if err != nil {
		err = fmt.Errorf("replace worker %s: %w", w.cfg.Name, err)
		failed = err.Error()
		w.cfg.Log.Error("hand over", "worker", w.cfg.Name, "err", err)
	}
	w.mu.Lock()
	w.failed = failed
	w.mu.Unlock()
	done <- err
	return now
}

// handOver replaces old, and returns who is in charge after it: the new one, or
// old itself; nil if nobody is.
func (w *Worker) handOver(ctx context.Context, old *instance) (*instance, error) {
	if err := w.bind(ctx); err != nil {
		return old, err
	}
	if w.cfg.Alone {
		return w.takeTurns(ctx, old)
	}
	next, err := w.startNext()
	if err != nil {
		return old, err
	}
	w.cfg.Log.Info("handing over", "worker", w.cfg.Name, "from", old.p.PID(), "to", next.p.PID())
	if err := w.ready(ctx, next, old); err != nil {
		w.retire(ctx, next)
		return old, err
	}
	if err := w.promote(next, old); err != nil {
		w.retire(ctx, next)
		return old, err
	}
	w.retire(ctx, old)
	w.awaitYield(ctx, old)
	w.giveTurn(next)
	return next, nil
}

// takeTurns ends old before the next begins: both at a time cannot be.
func (w *Worker) takeTurns(ctx context.Context, old *instance) (*instance, error) {
	if err := old.p.Stop(ctx, syscall.SIGTERM, aloneGrace); err != nil {
		return old, err
	}
	w.empty("its process ended; the next one is starting")
	next, err := w.start()
	if err != nil {
		return nil, err
	}
	return next, w.ready(ctx, next, nil)
}

// startNext starts a process beside the one in charge.
func (w *Worker) startNext() (*instance, error) {
	w.births.Lock()
	defer w.births.Unlock()
	p, err := w.launch(w.nextRecord(), waitTurn)
	if err != nil {
		return nil, err
	}
	i := newInstance(p)
	w.mu.Lock()
	w.next = i
	w.mu.Unlock()
	return i, nil
}

// ready waits until next can take over from old, or serves well if old is nil.
// If old ends meanwhile next takes over as it is.
func (w *Worker) ready(ctx context.Context, next, old *instance) error {
	late := time.NewTimer(w.readyLimit)
	defer late.Stop()
	var ended <-chan struct{}
	if old != nil {
		ended = old.p.Done()
	}
	for {
		why := w.lacks(next, old)
		if why == "" {
			return nil
		}
		select {
		case <-w.stirred:
		case <-next.p.Done():
			return fmt.Errorf("the new process ended: %w; the log of %s may say more", ending(next.p), w.cfg.Name)
		case <-ended:
			return nil
		case <-late.C:
			return fmt.Errorf("the new process was not ready after %s: %s", w.readyLimit, why)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func ending(p *process.Process) error {
	if err := p.Err(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}

// lacks says what next has not got yet; empty: it is ready.
func (w *Worker) lacks(next, old *instance) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case next.conn == nil:
		return "it has not called"
	case next.applied != w.seq || w.seq == 0:
		return "it has not applied the state"
	case next.refused != "":
		return next.refused
	case old != nil && old.problem != "":
		return ""
	}
	return next.problem
}

// promote makes next the one in charge. The records come first: whatever
// happens to node from here on, the next node finds who is what.
func (w *Worker) promote(next, old *instance) error {
	if err := old.p.Rename(w.retiringRecord(old.p.PID())); err != nil {
		return err
	}
	if err := next.p.Rename(w.record()); err != nil {
		return errors.Join(err, old.p.Rename(w.record()))
	}
	w.mu.Lock()
	w.current, w.next = next, nil
	applied, problem := appliedMessage{Seq: next.applied, Error: next.refused}, next.problem
	w.mu.Unlock()
	w.confirm(applied)
	w.report(next, problem)
	return nil
}

// retire has i end with its last connection.
func (w *Worker) retire(ctx context.Context, i *instance) {
	w.mu.Lock()
	if w.next == i {
		w.next = nil
	}
	w.retiring = append(w.retiring, i)
	var oldest *instance
	if len(w.retiring) > retireLimit {
		oldest = w.retiring[0]
	}
	w.mu.Unlock()
	if oldest != nil {
		w.cfg.Log.Warn("too many former processes, ending the oldest", "worker", w.cfg.Name, "pid", oldest.p.PID())
		oldest.p.KillGroup()
	}
	if err := i.p.Rename(w.retiringRecord(i.p.PID())); err != nil {
		w.cfg.Log.Error("record former process", "worker", w.cfg.Name, "err", err)
	}
	if err := i.p.Signal(syscall.SIGTERM); err != nil {
		w.cfg.Log.Error("end former process", "worker", w.cfg.Name, "err", err)
	}
	w.former.Go(func() { w.watchRetiring(ctx, i) })
}

// watchRetiring sees i to its end, or ends it if it falls silent.
func (w *Worker) watchRetiring(ctx context.Context, i *instance) {
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		wait := pace.Next(beat)
		expected := time.Now().Add(wait)
		due.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-i.p.Done():
			w.cfg.Log.Info("former process ended", "worker", w.cfg.Name, "pid", i.p.PID(), "after", time.Since(i.p.Started()).Round(time.Second))
			i.p.Release()
			w.forget(i)
			_ = os.Remove(filepath.Join(w.cfg.MetricsDir, retiringName(w.cfg.Name, i.p.PID())+".sock"))
			return
		case <-due.C:
			if w.fellSilent(i, time.Since(expected)) {
				w.cfg.Log.Warn("former process is silent, ending it", "worker", w.cfg.Name, "pid", i.p.PID())
				i.p.KillGroup()
			}
		}
	}
}

// awaitYield waits until old reads no packets any more.
func (w *Worker) awaitYield(ctx context.Context, old *instance) {
	late := time.NewTimer(yieldLimit)
	defer late.Stop()
	select {
	case <-old.yielded:
	case <-old.p.Done():
	case <-ctx.Done():
	case <-late.C:
		w.cfg.Log.Warn("former process does not say that it gave way", "worker", w.cfg.Name, "pid", old.p.PID())
	}
}

// giveTurn tells i that it is in charge; one that is not connected is told when it is.
func (w *Worker) giveTurn(i *instance) {
	w.mu.Lock()
	i.turn = true
	c := i.conn
	w.mu.Unlock()
	if c != nil {
		_ = c.send(message{Turn: &struct{}{}})
	}
}

// adoptFormer finds the processes that a former node left beside the one in
// charge: those that drain go on doing so. One that was about to take over
// does, if the one before is gone; else it has to end, for nobody knows how far it is.
func (w *Worker) adoptFormer(ctx context.Context) {
	w.clearSockets()
	records, _ := filepath.Glob(filepath.Join(w.cfg.Records, w.record()+"-retiring-*.json"))
	for _, path := range records {
		w.adoptRetiring(ctx, strings.TrimSuffix(filepath.Base(path), ".json"))
	}
	if _, err := process.Running(w.cfg.Records, w.record()); !errors.Is(err, process.ErrNone) {
		w.adoptRetiring(ctx, w.nextRecord())
		return
	}
	path := func(record string) string { return filepath.Join(w.cfg.Records, record+".json") }
	err := os.Rename(path(w.nextRecord()), path(w.record())) // and obtain adopts it
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.cfg.Log.Error("adopt next process", "worker", w.cfg.Name, "err", err)
	}
}

func (w *Worker) adoptRetiring(ctx context.Context, record string) {
	w.births.Lock()
	defer w.births.Unlock()
	p, err := process.Adopt(w.cfg.Records, record)
	if errors.Is(err, process.ErrNone) {
		return
	}
	if err != nil {
		w.cfg.Log.Error("adopt former process", "worker", w.cfg.Name, "err", err)
		return
	}
	w.retire(ctx, newInstance(p))
}

// clearSockets removes the metrics sockets of former processes that run no more.
func (w *Worker) clearSockets() {
	paths, _ := filepath.Glob(filepath.Join(w.cfg.MetricsDir, w.cfg.Name+"-retiring-*.sock"))
	for _, path := range paths {
		record := w.record() + strings.TrimPrefix(strings.TrimSuffix(filepath.Base(path), ".sock"), w.cfg.Name)
		if _, err := process.Running(w.cfg.Records, record); errors.Is(err, process.ErrNone) {
			_ = os.Remove(path)
		}
	}
}
