package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"trivet/e2e/history"
)

// Trial is something that befalls the lab under a load of transactions.
type Trial struct {
	Name   string
	Victim Victim
	Break  func(ctx context.Context, l *Lab, victim string) error
	Mend   func(ctx context.Context, l *Lab, victim string) error // nil: it mends itself
	Apart  bool                                                   // the victim's own clients are not asked how long they waited
	Lasts  time.Duration                                          // from Break to Mend, at least; 2 s
}

// Victim says whom a trial befalls.
type Victim string

// The victims that are found when a trial begins. Others are servers' names.
const (
	Writer Victim = "writer"
	Other  Victim = "other" // the last of those that are not the writer
	All    Victim = "all"
)

// find names the victim.
func (v Victim) find(s Status) string {
	switch v {
	case Writer:
		return s.Writer
	case Other:
		rest := others(s.Writer)
		return rest[len(rest)-1]
	}
	return string(v)
}

// Figures are what a trial showed.
type Figures struct {
	Name                   string
	Gap                    time.Duration // longest between acknowledged writes of one server's clients
	Synced                 time.Duration // from the mending until all three are synced
	Acked, Failed, Unknown int
	Wrong                  []string
	Errors                 []string // that clients got, the most frequent first
}

func (f Figures) String() string {
	return fmt.Sprintf("%-44s gap %6.2f s  synced after %6.2f s  acknowledged %5d  refused %4d  unknown %3d  wrong %d",
		f.Name, f.Gap.Seconds(), f.Synced.Seconds(), f.Acked, f.Failed, f.Unknown, len(f.Wrong))
}

// Limits of a trial; what takes longer is broken.
const (
	healthyLimit = 2 * time.Minute
	syncedLimit  = 2 * time.Minute
	ackLimit     = time.Minute
	settled      = time.Second // of load after all are synced again
)

// Try has t befall the lab under load, waits until all is well again, and
// checks what the clients were told.
func (l *Lab) Try(ctx context.Context, t Trial) (Figures, error) {
	f := Figures{Name: t.Name}
	if err := l.becomesHealthy(ctx); err != nil {
		return f, fmt.Errorf("%s: before it: %w", t.Name, err)
	}
	load, err := l.Transactions(ctx)
	if err == nil {
		err = load.Prepare(ctx)
	}
	if err != nil {
		return f, fmt.Errorf("%s: %w", t.Name, err)
	}
	stop := l.begin(ctx, load)
	err = l.befall(ctx, t, load, &f)
	err = errors.Join(err, stop())
	f.tell(load.History())
	if err != nil {
		return f, fmt.Errorf("%s: %w", t.Name, err)
	}
	f.Wrong, err = l.Audit(ctx, load)
	return f, err
}

// begin starts the load; the function that it returns ends it.
func (l *Lab) begin(ctx context.Context, load *history.Load) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- load.Run(ctx) }()
	return func() error { cancel(); return <-ended }
}

// befall is the part of a trial that is under load.
func (l *Lab) befall(ctx context.Context, t Trial, load *history.Load, f *Figures) error {
	if err := acknowledged(ctx, load, 0, 50); err != nil {
		return err
	}
	s, err := l.Status(ctx)
	if err != nil {
		return err
	}
	victim, asked := t.Victim.find(s), Servers
	if t.Apart {
		asked = others(victim)
	}
	from := load.Since()
	if err := t.Break(ctx, l, victim); err != nil {
		return err
	}
	broken := load.Since()
	mended, lasts := from, max(t.Lasts, 2*time.Second)
	if t.Mend != nil {
		if t.Victim != All {
			err = acknowledged(ctx, load, broken, 50)
		}
		if err = errors.Join(err, pause(ctx, lasts-(load.Since()-broken))); err != nil {
			return err
		}
		mended = load.Since()
		if err := t.Mend(ctx, l, victim); err != nil {
			return err
		}
	}
	if f.Synced, err = l.becomesSynced(ctx, load, mended); err != nil {
		return err
	}
	back := load.Since()
	err = errors.Join(acknowledged(ctx, load, back, 50), pause(ctx, settled))
	f.Gap = worstGap(load.History(), from, load.Since(), asked)
	return err
}

// worstGap is the longest time that the clients of one server waited.
func worstGap(ops []history.Op, from, to time.Duration, servers []string) time.Duration {
	worst := time.Duration(0)
	for _, s := range servers {
		worst = max(worst, history.Gap(ops, from, to, s))
	}
	return worst
}

// acknowledged waits until so many writes have been since a moment.
func acknowledged(ctx context.Context, load *history.Load, since time.Duration, n int) error {
	return until(ctx, ackLimit, func() error {
		got := 0
		for _, o := range load.History() {
			if o.End > since && o.Outcome == history.OK {
				got++
			}
		}
		if got < n {
			return fmt.Errorf("%d operations were acknowledged, want %d", got, n)
		}
		return nil
	})
}

// becomesSynced waits for all three and returns how long that took since mended.
func (l *Lab) becomesSynced(ctx context.Context, load *history.Load, mended time.Duration) (time.Duration, error) {
	err := until(ctx, syncedLimit, func() error { return l.Synced(ctx) })
	return load.Since() - mended, err
}

func (l *Lab) becomesHealthy(ctx context.Context) error {
	return until(ctx, healthyLimit, func() error {
		s, err := l.Status(ctx)
		if err == nil && !s.Healthy {
			err = fmt.Errorf("the lab is not healthy: %v", s.Servers)
		}
		return errors.Join(err, l.Synced(ctx))
	})
}

// tell counts what the clients were told.
func (f *Figures) tell(ops []history.Op) {
	n := history.Count(ops)
	f.Acked, f.Failed, f.Unknown = n[history.OK], n[history.Failed], n[history.Unknown]
	seen := map[string]int{}
	for _, o := range ops {
		if o.Error != "" {
			seen[string(o.Kind)+" "+string(o.Outcome)+": "+o.Error]++
		}
	}
	words := slices.SortedFunc(maps.Keys(seen), func(a, b string) int {
		if seen[a] != seen[b] {
			return seen[b] - seen[a]
		}
		return strings.Compare(a, b)
	})
	for _, w := range words {
		f.Errors = append(f.Errors, fmt.Sprintf("%d × %s", seen[w], w))
	}
}

// until asks f, ten times a second, until it has no error or the time is over.
func until(ctx context.Context, limit time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("not within %s: %w", limit, err)
		}
	}
}

// pause waits for d, or less if ctx ends.
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
