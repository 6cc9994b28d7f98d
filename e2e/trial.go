package e2e

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Trial is something that befalls the lab under a load of transactions.
type Trial struct {
	Name   string
	Victim Victim
	Before deed // without load; may be nil
	Break  deed
	Mend   deed          // nil: it mends itself
	After  deed          // without load, whatever came before; may be nil
	Apart  bool          // the victim's own clients are not asked how long they waited
	Lasts  time.Duration // from Break to Mend, at least; a second
	Dark   bool          // nobody can write before it is mended
	Long   bool          // not in the lab ring
}

// deed does something to a server, or to all; it is told their name, or "all".
type deed func(ctx context.Context, l *Lab, victim string) error

// do does it, if there is anything to do.
func (d deed) do(ctx context.Context, l *Lab, victim string) error {
	if d == nil {
		return nil
	}
	return d(ctx, l, victim)
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
	lasts        = time.Second
	enough       = 50 // acknowledged operations that show that the load goes on
)

// Work is a load whose writes are acknowledged, and can be looked for afterwards.
type Work interface {
	Run(ctx context.Context) error                         // works until ctx ends
	Since() time.Duration                                  // since it began
	Acknowledged(since time.Duration) int                  // operations
	Gap(from, to time.Duration, of []string) time.Duration // longest between acknowledged writes of one of those servers' clients
	Tell(*Figures)                                         // how many writes had which outcome, and the errors
	Audit(ctx context.Context) ([]string, error)           // what is wrong, when it has ended
}

// Try has t befall the lab under a load of transactions, waits until all is
// well again, and checks what the clients were told.
func (l *Lab) Try(ctx context.Context, t Trial) (Figures, error) {
	return l.Befall(ctx, t, func(ctx context.Context) (Work, error) { return l.transactions(ctx) })
}

// Befall is Try with another load, which is prepared when the lab is.
func (l *Lab) Befall(ctx context.Context, t Trial, prepare func(context.Context) (Work, error)) (f Figures, err error) {
	f.Name = t.Name
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", t.Name, err)
		}
	}()
	if err := l.becomesHealthy(ctx); err != nil {
		return f, fmt.Errorf("before it: %w", err)
	}
	s, err := l.Status(ctx)
	if err != nil {
		return f, err
	}
	victim := t.Victim.find(s)
	defer func() { err = errors.Join(err, t.After.do(context.WithoutCancel(ctx), l, victim)) }()
	if err := errors.Join(t.Before.do(ctx, l, victim), l.becomesHealthy(ctx)); err != nil {
		return f, fmt.Errorf("before it: %w", err)
	}
	work, err := prepare(ctx)
	if err != nil {
		return f, err
	}
	stop := begin(ctx, work)
	err = l.befall(ctx, t, victim, work, &f)
	err = errors.Join(err, stop())
	work.Tell(&f)
	if err != nil {
		return f, err
	}
	f.Wrong, err = work.Audit(ctx)
	return f, err
}

// begin starts the work; the function that it returns ends it.
func begin(ctx context.Context, work Work) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- work.Run(ctx) }()
	return func() error { cancel(); return <-ended }
}

// befall is the part of a trial that is under load.
func (l *Lab) befall(ctx context.Context, t Trial, victim string, work Work, f *Figures) error {
	if err := acknowledged(ctx, work, 0, enough); err != nil {
		return err
	}
	from := work.Since()
	if err := t.Break(ctx, l, victim); err != nil {
		return err
	}
	mended := from
	mending := make(chan error, 1)
	if t.Mend == nil {
		mending <- nil
	} else {
		if err := goesOn(ctx, t, work, work.Since()); err != nil {
			return err
		}
		mended = work.Since()
		go func() { mending <- t.Mend(ctx, l, victim) }()
	}
	err := until(ctx, syncedLimit, func() error { return l.Synced(ctx) })
	f.Synced = work.Since() - mended
	if err = errors.Join(err, <-mending); err != nil {
		return err
	}
	err = errors.Join(acknowledged(ctx, work, work.Since(), enough), pause(ctx, settled))
	asked := Servers
	if t.Apart {
		asked = others(victim)
	}
	f.Gap = work.Gap(from, work.Since(), asked)
	return err
}

// goesOn waits until a fault has lasted, and writes are acknowledged beside it
// unless nobody can write.
func goesOn(ctx context.Context, t Trial, work Work, broken time.Duration) (err error) {
	if !t.Dark {
		err = acknowledged(ctx, work, broken, enough)
	}
	return errors.Join(err, pause(ctx, max(t.Lasts, lasts)-(work.Since()-broken)))
}

// acknowledged waits until so many operations have been since a moment.
func acknowledged(ctx context.Context, work Work, since time.Duration, n int) error {
	return until(ctx, ackLimit, func() error {
		if got := work.Acknowledged(since); got < n {
			return fmt.Errorf("%d operations were acknowledged, want %d", got, n)
		}
		return nil
	})
}

// becomesHealthy waits until every part is, and the three databases are synced.
func (l *Lab) becomesHealthy(ctx context.Context) error {
	return until(ctx, healthyLimit, func() error {
		s, err := l.Status(ctx)
		if err == nil && !s.Healthy {
			err = fmt.Errorf("the lab is not healthy: %v", s.Servers)
		}
		return errors.Join(err, l.Synced(ctx))
	})
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
