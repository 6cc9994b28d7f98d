// Package firewall lets in and out only what the site's topology needs: one
// table of the kernel's nftables, default drop in, out and forward, compiled
// from the State and written in one step by netlink. It is the only importer
// of google/nftables.
//
// The rules stay in force when the process ends. They are compared with the
// policy, expression by expression, whenever the kernel says that something
// changed, and written again if they differ. ARP is no concern of the table.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"trivet/internal/metric"
	"trivet/internal/part"
)

var _ part.Part = (*Firewall)(nil)

// interval is how often Run looks whether the rules are still in force.
const interval = 5 * time.Second

// Config is what a Firewall is made of.
type Config struct {
	Log     *slog.Logger
	Metrics *metric.Registry
}

// Firewall keeps the kernel's table as the policy says.
type Firewall struct {
	log      *slog.Logger
	dropped  *metric.CounterVec
	repaired *metric.CounterVec

	mu       sync.Mutex
	kernel   *kernel // opened by the first use
	policy   *Policy // in force; nil before the first Apply
	verified uint32  // generation of the kernel's rules at which they were last seen to be the policy; 0 never
	seen     counts  // at the last export
	counted  bool    // whether seen was ever read
}

type counts struct{ in, out uint64 }

// New returns a firewall that has not touched the kernel yet.
func New(c Config) *Firewall {
	return &Firewall{
		log: c.Log,
		dropped: c.Metrics.Counter("trivet_firewall_dropped_packets_total",
			"Packets that the firewall dropped.", "direction"),
		repaired: c.Metrics.Counter("trivet_firewall_repairs_total",
			"Times that the rules in the kernel were not the policy's and were written again."),
	}
}

// Apply puts the policy of s in force. It writes nothing if the kernel holds
// it already. On error the kernel holds what it held.
func (f *Firewall) Apply(_ context.Context, s part.State) error {
	p, err := Compile(s)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verified = 0 // a user may have been made since; see rule.user
	differs, err := f.compare(p)
	if err != nil {
		return err
	}
	if differs != "" {
		if err := f.write(p); err != nil {
			return err
		}
		f.log.Info("firewall rules written", "rules", len(p.lines()), "revision", s.Revision)
	}
	f.policy = &p
	return nil
}

// Run keeps the policy in force and counts what is dropped until ctx ends.
// The rules stay in the kernel.
func (f *Firewall) Run(ctx context.Context) error {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		if err := f.keep(); err != nil {
			f.log.Error("keep firewall rules", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// Check returns nil when the kernel holds the policy.
func (f *Firewall) Check(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.policy == nil {
		return errors.New("no state yet")
	}
	differs, err := f.compare(*f.policy)
	if err != nil {
		return err
	}
	if differs != "" {
		return fmt.Errorf("rules in the kernel were changed: %s; they are written again within %s", differs, interval)
	}
	return nil
}

// Running returns the rules that the kernel holds now, in nft's words. A rule
// that is not of the policy is shown by its handle.
func (f *Firewall) Running(context.Context) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.open(); err != nil {
		return "", err
	}
	var p Policy
	if f.policy != nil {
		p = *f.policy
	}
	return f.kernel.list(p)
}

// Dropped returns how many packets were dropped on their way in (or through)
// and out since the table was made.
func (f *Firewall) Dropped(context.Context) (in, out uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.open(); err != nil {
		return 0, 0, err
	}
	return f.kernel.dropped()
}

// Remove deletes the table, and with it all protection, until the next Apply.
func (f *Firewall) Remove(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.open(); err != nil {
		return err
	}
	f.policy, f.verified = nil, 0
	return f.kernel.remove()
}

// keep writes the policy again if the kernel lost it, and exports the counters.
func (f *Firewall) keep() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.policy == nil {
		return nil
	}
	differs, err := f.compare(*f.policy)
	if err != nil {
		return err
	}
	if differs != "" {
		f.log.Warn("firewall rules were changed by somebody else; writing them again", "what", differs)
		f.repaired.WithLabelValues().Inc()
		if err := f.write(*f.policy); err != nil {
			return err
		}
	}
	return f.count()
}

// count exports what was dropped since the last time. What was dropped before
// this process began has been counted by the one before.
func (f *Firewall) count() error {
	in, out, err := f.kernel.dropped()
	if err != nil {
		return err
	}
	if f.counted {
		f.dropped.WithLabelValues("in").Add(grown(f.seen.in, in))
		f.dropped.WithLabelValues("out").Add(grown(f.seen.out, out))
	}
	f.seen, f.counted = counts{in, out}, true
	return nil
}

// grown is how much a counter grew that starts at zero when its table is made anew.
func grown(before, now uint64) float64 {
	if now < before {
		return float64(now)
	}
	return float64(now - before)
}

// compare says how the kernel's rules differ from p. The rules are read only
// if p is new or the kernel's generation moved since they were last right.
func (f *Firewall) compare(p Policy) (differs string, err error) {
	if err := f.open(); err != nil {
		return "", err
	}
	g, err := f.kernel.generation()
	if err != nil {
		return "", err
	}
	if g == f.verified && f.policy != nil && f.policy.String() == p.String() {
		return "", nil
	}
	differs, err = f.kernel.verify(p)
	if err == nil && differs == "" {
		f.verified = g
	}
	return differs, err
}

// write puts p into the kernel and reads it back; if that is not enough, it
// makes the table anew.
func (f *Firewall) write(p Policy) error {
	f.verified = 0
	err := f.written(f.kernel.write, p)
	if err == nil {
		return nil
	}
	f.log.Warn("making the firewall's table anew", "why", err)
	return f.written(f.kernel.rewrite, p)
}

func (f *Firewall) written(write func(Policy) error, p Policy) error {
	if err := write(p); err != nil {
		return err
	}
	differs, err := f.kernel.verify(p)
	if err == nil && differs != "" {
		err = fmt.Errorf("write firewall rules: the kernel holds something else: %s", differs)
	}
	return err
}

// open connects to the kernel if that was not done yet.
func (f *Firewall) open() error {
	if f.kernel != nil {
		return nil
	}
	k, err := open()
	f.kernel = k
	return err
}
