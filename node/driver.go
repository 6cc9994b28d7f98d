package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"trivet/internal/pace"
	"trivet/internal/part"
	"trivet/internal/process"
)

const (
	applyLimit = 30 * time.Second
	checkEvery = time.Second
	checkLimit = 3 * time.Second
	staleCheck = 6 * time.Second // after which a health is not known any more: the server was frozen
)

// driver keeps one part applied and watched. The newest state wins: one that
// was not applied yet is dropped for a newer one.
type driver struct {
	name    string
	part    part.Part
	log     *slog.Logger
	states  chan part.State
	look    chan struct{} // look at the health now
	changed func()        // health or applied state changed
	applied func(part.State)

	mu      sync.Mutex
	last    []byte      // newest offered, encoded, to see whether the next differs
	failed  string      // why the newest state is not applied
	problem string      // what Check said
	since   time.Time   // of the present health
	checked time.Time   // when it was last looked at
	done    *part.State // newest applied
}

func newDriver(name string, p part.Part, log *slog.Logger, changed func()) *driver {
	return &driver{
		name: name, part: p, log: log, changed: changed,
		states: make(chan part.State, 1), look: make(chan struct{}, 1),
		problem: "starting", since: time.Now(),
	}
}

// offer hands the part a state, unless it is what it had last.
func (d *driver) offer(s part.State) {
	encoded, err := json.Marshal(s)
	if err != nil {
		d.log.Error("encode state", "part", d.name, "err", err)
		return
	}
	d.mu.Lock()
	same := bytes.Equal(d.last, encoded)
	d.last = encoded
	d.mu.Unlock()
	if same {
		return
	}
	select {
	case <-d.states:
	default:
	}
	d.states <- s
}

// run applies and checks until ctx ends.
func (d *driver) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { d.check(ctx) })
	defer wg.Wait()
	back := process.Backoff{Min: 200 * time.Millisecond, Max: 10 * time.Second}
	var s part.State
	var again <-chan time.Time // when to try s once more; nil while it is in force
	for {
		select {
		case <-ctx.Done():
			return
		case s = <-d.states:
			back.Reset()
		case <-again:
		}
		again = nil
		if err := d.apply(ctx, s); err != nil && ctx.Err() == nil {
			d.log.Error("apply state", "part", d.name, "revision", s.Revision, "err", err)
			again = time.After(back.Next())
		}
	}
}

func (d *driver) apply(ctx context.Context, s part.State) error {
	ctx, cancel := context.WithTimeout(ctx, applyLimit)
	defer cancel()
	err := d.part.Apply(ctx, s)
	d.mu.Lock()
	d.failed = ""
	if err != nil {
		d.failed = fmt.Sprintf("revision %d is not in force: %v", s.Revision, err)
	} else {
		d.done = &s
	}
	d.mu.Unlock()
	if err == nil && d.applied != nil {
		d.applied(s)
	}
	d.again()
	d.changed()
	return err
}

// again has the health looked at now.
func (d *driver) again() {
	select {
	case d.look <- struct{}{}:
	default:
	}
}

func (d *driver) check(ctx context.Context) {
	due := time.NewTimer(pace.Next(checkEvery))
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		case <-d.look:
		}
		cctx, cancel := context.WithTimeout(ctx, checkLimit)
		err := d.part.Check(cctx)
		cancel()
		if ctx.Err() == nil {
			d.note(err)
		}
		due.Reset(pace.Next(checkEvery))
	}
}

func (d *driver) note(err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	d.mu.Lock()
	d.checked = time.Now()
	changed := d.problem != problem
	if (d.problem == "") != (problem == "") {
		d.since = time.Now()
	}
	d.problem = problem
	d.mu.Unlock()
	if changed {
		d.log.Info("health changed", "part", d.name, "problem", problem)
		d.changed()
	}
}

// health returns why the part is not well, empty if it is, and since when.
func (d *driver) health() (problem string, since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed != "" {
		return d.failed, d.since
	}
	if age := time.Since(d.checked); !d.checked.IsZero() && age > staleCheck {
		return fmt.Sprintf("was last looked at %.0f s ago", age.Seconds()), d.checked
	}
	return d.problem, d.since
}

// revision is the newest revision in force, 0 if none.
func (d *driver) revision() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done == nil {
		return 0
	}
	return d.done.Revision
}
