package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"trivet/e2e"
	"trivet/e2e/measure"
)

// fault is one thing that happens to a server.
type fault struct {
	name       string
	begin, end string // commands of trivet lab
	server     func(e2e.Status) string
}

var allFaults = []fault{
	{"kill of the address's holder", "kill", "start", func(s e2e.Status) string { return s.AddressHolder }},
	{"kill of the writer", "kill", "start", func(s e2e.Status) string { return s.Writer }},
	{"cut of the writer", "cut", "heal", func(s e2e.Status) string { return s.Writer }},
}

// moveLimit is how long address and writer may take to be elsewhere; more is
// not a figure but a lab that is broken.
const moveLimit = 30 * time.Second

func (b *bench) faults(ctx context.Context) error {
	for _, f := range allFaults {
		if err := b.fault(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// fault breaks a server under load, waits until the others do its work, and
// makes it whole again.
func (b *bench) fault(ctx context.Context, f fault) error {
	if _, err := b.lab.Up(ctx); err != nil { // all healthy
		return err
	}
	before, err := b.lab.Status(ctx)
	if err != nil {
		return err
	}
	server := f.server(before)
	l, err := b.load()
	if err != nil {
		return err
	}
	group := fmt.Sprintf("%s (%s) at %d requests/s", f.name, duties(before, server), rate)
	say("%s", group)
	p := &probe{lab: b.lab}
	begun, ended, err := b.under(ctx, l, p, func() error { return b.breakAndWait(ctx, f, server) })
	if err != nil {
		return err
	}
	missing, err := l.Missing(l.Client)
	if err != nil {
		return err
	}
	b.report.Add(group, "longest gap between acknowledged posts", l.Gap(begun, ended).Seconds(), measure.Seconds, goalResume)
	b.report.Add(group, "longest time without an answer at the address", p.gap(begun, ended).Seconds(), measure.Seconds, 0)
	b.report.Add(group, "failed GETs", float64(len(l.Failed)), measure.Requests, 0)
	b.report.Add(group, "posts not acknowledged", float64(len(l.Lost)), measure.Posts, 0)
	b.report.Add(group, "acknowledged posts lost", float64(len(missing)), measure.Posts, 0)
	_, err = b.lab.Run(ctx, "lab", f.end, server)
	return err
}

// duties says what a server did for the others, for the two may be one.
func duties(s e2e.Status, server string) string {
	out := server
	if s.AddressHolder == server {
		out += ", had the address"
	}
	if s.Writer == server {
		out += ", took the writes"
	}
	return out
}

// under runs do while the load and the probe run, and says when do was.
func (b *bench) under(ctx context.Context, l *e2e.Load, p *probe, do func() error) (begun, ended time.Time, err error) {
	loading, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { l.Run(loading) })
	wg.Go(func() { err = p.run(loading) })
	doErr := pause(ctx, 2*time.Second)
	begun = time.Now()
	if doErr == nil {
		doErr = do()
	}
	ended = time.Now()
	stop()
	wg.Wait()
	if doErr != nil {
		err = doErr
	}
	return begun, ended, err
}

// breakAndWait breaks the server, and returns a while after address and writer are elsewhere.
func (b *bench) breakAndWait(ctx context.Context, f fault, server string) error {
	if _, err := b.lab.Run(ctx, "lab", f.begin, server); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, moveLimit, fmt.Errorf("address or writer is still on %s after %s", server, moveLimit))
	defer cancel()
	for {
		s, err := b.lab.Status(ctx)
		if err == nil && s.AddressHolder != "" && s.AddressHolder != server && s.Writer != "" && s.Writer != server {
			break
		}
		if pause(ctx, 250*time.Millisecond) != nil {
			return context.Cause(ctx)
		}
	}
	return pause(ctx, 5*time.Second) // for what came later than the decision
}

// Each probe is a visitor who comes for the first time.
const (
	probeEvery   = 50 * time.Millisecond
	probeTimeout = time.Second
)

// probe asks the address for a small file, always on a new connection.
type probe struct {
	lab *e2e.Lab

	mu      sync.Mutex
	answers []time.Time
}

// run asks until ctx ends, then waits for the last answers.
func (p *probe) run(ctx context.Context) error {
	c, err := p.lab.Visitor(p.lab.Floating())
	if err != nil {
		return err
	}
	c.Timeout = probeTimeout
	c.Transport.(*http.Transport).DisableKeepAlives = true
	var wg sync.WaitGroup
	defer wg.Wait()
	for pause(ctx, probeEvery) == nil {
		wg.Go(func() { p.ask(c) })
	}
	return nil
}

func (p *probe) ask(c *http.Client) {
	res, err := c.Get("https://" + e2e.Domain + "/style.css")
	if err != nil {
		return
	}
	_, err = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != http.StatusOK {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = append(p.answers, time.Now())
}

// gap is the longest time without an answer between from and to.
func (p *probe) gap(from, to time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return e2e.Longest(p.answers, from, to)
}
