package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"trivet/internal/part"
	"trivet/internal/process"
)

// generation is a set of instances that are alike. App.mu guards it.
type generation struct {
	number    int
	hash      string
	plan      *plan // nil: adopted, and not asked for by any state so far
	instances []*instance
	left      time.Time // when it stopped serving
	settled   bool      // web does not use it any more
}

// instance is one place in a generation; processes come and go in it. App.mu
// guards it, apart from generation and index.
type instance struct {
	part.Instance
	generation *generation
	index      int

	process *process.Process
	up      bool               // healthy
	why     string             // why it is not; empty: it was not checked yet
	fell    bool               // a process of it has ended or was given up
	cancel  context.CancelFunc // ends it; nil: nobody watches it yet
	gone    bool               // nothing of it runs and nothing will
}

func newInstance(g *generation, index int) *instance {
	return &instance{generation: g, index: index, Instance: part.Instance{Name: fmt.Sprintf("%d-%d", g.number, index)}}
}

// fill makes the instances that g lacks.
func (g *generation) fill() {
	g.instances = slices.DeleteFunc(g.instances, func(i *instance) bool { return i.gone })
	for index := 1; index <= g.plan.count; index++ {
		if !slices.ContainsFunc(g.instances, func(i *instance) bool { return i.index == index }) {
			g.instances = append(g.instances, newInstance(g, index))
		}
	}
	slices.SortFunc(g.instances, func(a, b *instance) int { return a.index - b.index })
}

func (g *generation) healthy() []part.Instance {
	var list []part.Instance
	for _, i := range g.instances {
		if i.up {
			list = append(list, i.Instance)
		}
	}
	return list
}

// has reports whether any of g's instances is in names.
func (g *generation) has(names map[string]bool) bool {
	return slices.ContainsFunc(g.instances, func(i *instance) bool { return names[i.Name] })
}

// gone reports whether nothing of g runs.
func (g *generation) gone() bool {
	return !slices.ContainsFunc(g.instances, func(i *instance) bool { return !i.gone })
}

// state is nil if count instances are healthy, and says why not.
func (g *generation) state(count int) error {
	up := len(g.healthy())
	if up >= count {
		return nil
	}
	var why []string
	for _, i := range g.instances {
		if !i.up && i.why != "" {
			why = append(why, i.Name+" "+i.why)
		}
	}
	text := fmt.Sprintf("%d of %d instances healthy", up, count)
	if len(why) > 0 {
		text += ": " + strings.Join(why, "; ")
	}
	return errors.New(text)
}

// failure says why the first of g's instances that fell did so; nil if none did.
func (g *generation) failure() error {
	for _, i := range g.instances {
		if i.fell && !i.up {
			return fmt.Errorf("instance %s %s; the former instances go on", i.Name, i.why)
		}
	}
	return nil
}

// step brings the generations a step nearer to what is wanted and returns how long it may wait for the next.
func (a *App) step(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	a.mu.Lock()
	before := a.serving
	if a.doubt != nil {
		a.attend(ctx, wg)
		a.mu.Unlock()
		return doubtPace
	}
	if a.applied && a.waiting == "" {
		a.pursue()
	}
	a.attend(ctx, wg)
	a.promote()
	a.dismiss()
	serving := a.serving
	next := a.due()
	a.mu.Unlock()
	if serving != before {
		a.remember(serving)
		a.changed()
	}
	return next
}

// pursue makes a generation of what is wanted, if there is none.
func (a *App) pursue() {
	switch {
	case a.want == nil:
		a.leave(a.serving)
		a.leave(a.coming)
		a.serving, a.coming = nil, nil
	case a.serving != nil && a.serving.hash == a.want.hash:
		a.leave(a.coming)
		a.coming = nil
		a.serving.plan = a.want
		a.serving.fill()
	case a.coming == nil || a.coming.hash != a.want.hash:
		a.leave(a.coming)
		a.last++
		a.coming = &generation{number: a.last, hash: a.want.hash, plan: a.want}
		a.coming.fill()
		a.cfg.Log.Info("start instances", "generation", a.last, "release", a.want.release, "count", a.want.count)
	}
}

// promote lets the coming generation serve: when all of it is healthy, and as
// soon as any of it is better than what serves.
func (a *App) promote() {
	g := a.coming
	if g == nil {
		return
	}
	up := len(g.healthy())
	better := a.serving == nil || (up > 0 && len(a.serving.healthy()) == 0)
	if up < g.plan.count && !better {
		return
	}
	a.leave(a.serving)
	a.serving, a.coming = g, nil
}

// leave takes g out of use.
func (a *App) leave(g *generation) {
	if g == nil {
		return
	}
	g.left = time.Now()
	g.settled = g != a.serving // web has never heard of one that did not serve
	a.leaving = append(a.leaving, g)
}

// dismiss ends the instances of generations that web has let go of.
func (a *App) dismiss() {
	for _, g := range a.leaving {
		if !g.settled && time.Since(g.left) < settleLimit {
			continue
		}
		for _, i := range g.instances {
			i.cancel()
		}
	}
	a.leaving = slices.DeleteFunc(a.leaving, (*generation).gone)
}

// attend has every instance watched that is not.
func (a *App) attend(ctx context.Context, wg *sync.WaitGroup) {
	for _, i := range a.all() {
		if i.cancel == nil && !i.gone {
			own, cancel := context.WithCancel(ctx)
			i.cancel = cancel
			wg.Go(func() { a.supervise(ctx, own, i) })
		}
	}
}

// all are the instances of all generations; a.mu is held.
func (a *App) all() []*instance {
	var list []*instance
	for _, g := range append([]*generation{a.serving, a.coming}, a.leaving...) {
		if g != nil {
			list = append(list, g.instances...)
		}
	}
	return list
}

// due is how long Run may sleep if nothing happens.
func (a *App) due() time.Duration {
	next := time.Hour
	for _, g := range a.leaving {
		if !g.settled {
			next = min(next, max(settleLimit-time.Since(g.left), time.Millisecond))
		}
	}
	return next
}
