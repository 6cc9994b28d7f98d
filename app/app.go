// Package app runs the site's program: N instances on each server, as a user
// of their own, watched by HTTP, started again when they fall.
//
// What belongs together (release, settings, secrets, count) is a generation. A
// change starts a new generation beside the one that serves; when all of it is
// healthy it takes over, and the former one is ended once web no longer uses
// it. A generation that never gets healthy never serves. Instances outlive the
// node that started them: the next one adopts the generation that serves and
// ends what else it finds.
//
// Secrets reach an instance by its environment only; nothing here writes them
// to a file, an argument or a log.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"trivet/internal/part"
	"trivet/internal/process"
	"trivet/site"
)

const (
	settleLimit = 5 * time.Second  // how long web may take to let go of a former generation
	applyLimit  = 5 * time.Second  // how long Apply waits for a new generation
	startLimit  = 30 * time.Second // how long an instance may take to answer its first check
	probePace   = 100 * time.Millisecond
	doubtPace   = time.Second // between two looks at what runs already, while that is not known
)

// Config says where an App works.
type Config struct {
	Log     *slog.Logger
	Server  string // this server's name, given to instances as TRIVET_SERVER
	Records string // folder of process records
	LogDir  string // folder of app.log; empty: part.LogDir
	RunDir  string // folder of the instances' sockets; empty: part.AppRunDir
	User    string // user that instances run as; empty: part.UserApp
	Changed func() // called when Instances or Check would answer otherwise
}

// App is the part that runs the site's program. It implements part.Part.
type App struct {
	cfg   Config
	wake  chan struct{}
	found search // what ran already, before anything else is said or done

	mu      sync.Mutex
	applied bool
	doubt   error  // why it is not known what runs already; nil: it is known
	waiting string // why nothing can be started yet; empty: nothing is missing
	want    *plan  // nil: the site has no app, or waiting says why there is no plan yet
	health  site.Health
	domain  string
	grace   time.Duration
	running bool
	last    int           // highest number of a generation so far
	serving *generation   // in use; nil: none
	coming  *generation   // being started to follow serving; nil: none
	leaving []*generation // no longer in use, being ended
	pulse   chan struct{} // closed and replaced at each change
}

// New returns an App that does nothing until it is applied and run.
func New(cfg Config) *App {
	if cfg.LogDir == "" {
		cfg.LogDir = part.LogDir
	}
	if cfg.RunDir == "" {
		cfg.RunDir = part.AppRunDir
	}
	if cfg.User == "" {
		cfg.User = part.UserApp
	}
	before := site.Default().App // what holds for adopted instances before the first Apply
	return &App{
		cfg: cfg, wake: make(chan struct{}, 1), pulse: make(chan struct{}),
		health: before.Health, grace: before.Grace.Std(), domain: "localhost",
	}
}

// Apply makes the instances those that s asks for. While a change is rolled it
// waits for the new instances, a few seconds at most, and says why they are
// not healthy; the former ones then go on serving, and the roll goes on.
func (a *App) Apply(ctx context.Context, s part.State) error {
	p, waiting, err := newPlan(a.cfg, s)
	if err != nil {
		return fmt.Errorf("apply app: %w", err)
	}
	a.adopt()
	a.mu.Lock()
	a.applied, a.want, a.waiting = true, p, waiting
	a.health, a.grace, a.domain = s.Site.App.Health, s.Site.App.Grace.Std(), s.Site.Domain
	a.mu.Unlock()
	a.changed()
	ctx, cancel := context.WithTimeout(ctx, applyLimit)
	defer cancel()
	if err := a.rolled(ctx); err != nil {
		return fmt.Errorf("apply app: %w", err)
	}
	return nil
}

// rolled waits until no change is being rolled, or until it is known that it does not work.
func (a *App) rolled(ctx context.Context) error {
	for {
		a.mu.Lock()
		pulse, done := a.pulse, a.inForce()
		var failure error
		if g := a.coming; g != nil && a.want != nil && g.hash == a.want.hash {
			failure = g.failure()
		}
		a.mu.Unlock()
		if done || failure != nil {
			return failure
		}
		select {
		case <-pulse:
		case <-ctx.Done():
			return fmt.Errorf("the new instances are not healthy yet; the former ones go on: %w", ctx.Err())
		}
	}
}

// inForce reports whether nothing is to be rolled; a.mu is held.
func (a *App) inForce() bool {
	return !a.running || a.doubt != nil || a.waiting != "" || a.want == nil || a.serving == nil || a.serving.hash == a.want.hash
}

// Check is nil when all instances that the site asks for are healthy and of the newest release.
func (a *App) Check(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !a.applied:
		return errors.New("no state yet")
	case a.doubt != nil:
		return a.doubt
	case a.waiting != "":
		return errors.New(a.waiting)
	case a.want == nil:
		return nil
	case a.serving == nil:
		return errors.New("starting")
	case a.serving.hash == a.want.hash:
		return a.serving.state(a.want.count)
	case a.coming != nil && a.coming.hash == a.want.hash:
		if err := a.coming.state(a.want.count); err != nil {
			return fmt.Errorf("changing to release %.12s: %w; the former instances go on", a.want.release, err)
		}
	}
	return fmt.Errorf("changing to release %.12s", a.want.release)
}

// Instances are the healthy ones that web may hand requests to.
func (a *App) Instances() []part.Instance {
	a.adopt()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.serving == nil {
		return nil
	}
	return a.serving.healthy()
}

// Settle says which instances web now uses, so that others may be ended.
func (a *App) Settle(names []string) {
	a.mu.Lock()
	used := map[string]bool{}
	for _, name := range names {
		used[name] = true
	}
	for _, g := range a.leaving {
		g.settled = !g.has(used)
	}
	a.mu.Unlock()
	a.poke()
}

// Run keeps the instances running until ctx ends. They then go on by themselves.
func (a *App) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer a.setRunning(false)
	a.setRunning(true)
	for {
		a.adopt()
		next := a.step(ctx, &wg)
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-a.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

func (a *App) setRunning(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running = on
}

// Stop ends all instances, each with the site's grace, or with what is left of
// ctx. Call it after Run has returned.
func (a *App) Stop(ctx context.Context) error {
	a.adopt()
	a.mu.Lock()
	var processes []*process.Process
	for _, i := range a.all() {
		if i.process != nil {
			processes = append(processes, i.process)
		}
	}
	a.serving, a.coming, a.leaving = nil, nil, nil
	grace := a.grace
	a.mu.Unlock()
	errs := make([]error, len(processes))
	var wg sync.WaitGroup
	for n, p := range processes {
		wg.Go(func() { errs[n] = p.Stop(ctx, syscall.SIGTERM, grace) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop app: %w", err)
	}
	return nil
}

// changed tells everyone who may want to know that something is not as it was.
func (a *App) changed() {
	a.mu.Lock()
	close(a.pulse)
	a.pulse = make(chan struct{})
	a.mu.Unlock()
	a.poke()
	if a.cfg.Changed != nil {
		a.cfg.Changed()
	}
}

// poke has Run look at what is to be done.
func (a *App) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}
