// Package monitor sees the site: once a second it measures its server, reads
// the metrics of all processes there, keeps them as series on disk and as
// points in memory, exchanges points with the two other monitors, and steps
// the alerts. It serves the peers on one listener, and on another the console,
// of which it knows only that it is an http.Handler.
//
// Whatever fails (a process that hangs, a peer that is gone, a full disk, a
// webhook that does not answer) leaves a gap and a word in Check, and delays
// nothing else. It is the only importer of Prometheus's TSDB and of procfs.
package monitor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"trivet/internal/metric"
	"trivet/internal/mtls"
	"trivet/internal/overview"
	"trivet/internal/part"
)

const (
	eventLimit = 100                    // events that are kept
	quietAfter = 3 * time.Second        // a peer that sent nothing for so long is unreachable
	settle     = 250 * time.Millisecond // for the peers' points of a second to come in

	processEvery = 5 // seconds between two lists of processes
)

// Config is what a Monitor is made of. The folders are those of package part
// unless they are set.
type Config struct {
	Log     *slog.Logger
	Metrics *metric.Registry
	Peer    net.Listener // for the two others and node; mutual TLS is put on it
	Console net.Listener // for the operator; TLS is put on it

	MetricsDir string
	SeriesDir  string
	ReleaseDir string
	PeerPort   int // where the others' Peer listens; part.PortMonitor unless it is set
}

// Monitor is a part.Part, and the console's source.
type Monitor struct {
	cfg     Config
	store   *Store
	webhook *webhook
	dropped *metric.CounterVec
	tls     mtls.Source
	console atomic.Pointer[http.Handler]
	state   atomic.Pointer[part.State]
	certs   atomic.Pointer[[]tls.Certificate]

	applied   beat // a state arrived
	collected beat // a second of this server is in its ring
	published beat // the peers' second is in too: for the console

	saving sync.Mutex // orders writers of the standing

	mu        sync.Mutex
	rings     map[string]*Ring
	heard     map[string]time.Time // when a server's last point came in
	processes map[string][]overview.Process
	rules     []*rule
	watched   map[string]map[string]float64 // by server and name: gauges that built-in alerts go by
	pending   []*pending                    // oldest first
	events    []overview.Event              // oldest first
	mine      []overview.Event              // of those, what only this server knows
	unsaved   bool                          // events or what else the standing holds
}

// New returns a Monitor. It does nothing until Run and the first Apply.
func New(c Config) *Monitor {
	c.MetricsDir = orElse(c.MetricsDir, part.MetricsDir)
	c.SeriesDir = orElse(c.SeriesDir, part.SeriesDir)
	c.ReleaseDir = orElse(c.ReleaseDir, part.ReleaseDir)
	if c.PeerPort == 0 {
		c.PeerPort = part.PortMonitor
	}
	m := &Monitor{
		cfg: c, store: NewStore(c.Log, c.SeriesDir),
		rings: map[string]*Ring{}, heard: map[string]time.Time{}, processes: map[string][]overview.Process{},
	}
	m.webhook = newWebhook(c.Log)
	m.webhook.mine, m.webhook.settled, m.webhook.returned = m.sends, m.settled, m.returned
	m.dropped = c.Metrics.Counter("trivet_samples_dropped_total", "Samples that the series refused.")
	return m
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// SetConsole makes h answer on the console's listener. It may be called at any time.
func (m *Monitor) SetConsole(h http.Handler) { m.console.Store(&h) }

// Apply takes over a state: identity, certificates, members, alerts, retention.
func (m *Monitor) Apply(_ context.Context, s part.State) error {
	certs, err := parse(s.Certificates)
	if err != nil {
		return fmt.Errorf("use console's certificate: %w", err)
	}
	if err := m.tls.Set(s.Identity, s.Bundle); err != nil {
		return fmt.Errorf("use identity: %w", err)
	}
	m.certs.Store(&certs)
	before := m.state.Swap(&s)
	m.mu.Lock()
	m.rules = slices.Concat(rules(m.rules, s.Site.Monitor.Alerts), gaugeRules(m.rules, s.Site.Monitor.Alerts), standard(m.rules, s))
	m.mu.Unlock()
	for _, text := range changes(before, s) {
		m.note(time.Now(), text)
	}
	m.store.Retain(max(s.Site.Monitor.Retention.Std(), time.Hour))
	m.applied.strike()
	return nil
}

func parse(pairs []part.KeyPair) ([]tls.Certificate, error) {
	certs := make([]tls.Certificate, 0, len(pairs))
	for _, p := range pairs {
		c, err := tls.X509KeyPair(p.Certificate, p.Key)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// Run measures and serves until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	run := func(f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Go(func() { m.store.Run(ctx) })
	wg.Go(func() { m.webhook.run(ctx) })
	wg.Go(func() { m.follow(ctx) })
	run(m.servePeers)
	run(m.serveConsole)
	run(m.watch)
	<-ctx.Done()
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Check says why nothing is measured or stored, or nil.
func (m *Monitor) Check(context.Context) error {
	s := m.state.Load()
	if s == nil {
		return errors.New("no state yet")
	}
	m.mu.Lock()
	heard := m.heard[s.Server]
	m.mu.Unlock()
	if heard.IsZero() {
		return errors.New("no measurement yet")
	}
	if d := time.Since(heard); d > 2*quietAfter {
		return fmt.Errorf("no measurement for %s", d.Round(time.Second))
	}
	return m.store.Check()
}

// watch collects at every whole second, and publishes a little later, when the
// peers' points of that second have come in.
func (m *Monitor) watch(ctx context.Context) error {
	s, err := m.await(ctx)
	if err != nil {
		return nil
	}
	if err := m.recall(); err != nil {
		m.cfg.Log.Warn("forget what fired", "err", err)
	}
	c, err := newCollector(s.Server, m.cfg.MetricsDir, m.store, func(n int) {
		m.dropped.WithLabelValues().Add(float64(n))
	})
	if err != nil {
		return err
	}
	for {
		now := time.Now()
		if wait(ctx, now.Truncate(time.Second).Add(time.Second).Sub(now)) != nil {
			return nil
		}
		now = time.Now().Round(time.Second)
		f := c.collect(ctx, now)
		if now.Unix()%processEvery != 0 {
			f.Processes = nil
		}
		m.add(s.Server, f)
		m.collected.strike()
		if wait(ctx, settle) != nil {
			return nil
		}
		m.alert(now.Unix() - 1)
		m.remember()
		m.published.strike()
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// await returns the state as soon as there is one.
func (m *Monitor) await(ctx context.Context) (*part.State, error) {
	for {
		next := m.applied.next()
		if s := m.state.Load(); s != nil {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-next:
		}
	}
}

// add takes in what a server measured, this one or another.
func (m *Monitor) add(server string, f overview.Frame) {
	m.ring(server).Add(f.Point)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.heard[server] = time.Now()
	if f.Processes != nil {
		m.processes[server] = f.Processes
	}
	m.observe(server, f)
	m.keep(f.Events...)
	for _, e := range f.Events {
		m.forget(e)
	}
}

func (m *Monitor) ring(server string) *Ring {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.rings[server]
	if r == nil {
		r = &Ring{}
		m.rings[server] = r
	}
	return r
}

// alert steps the rules with the second t, and sends notices if that is this server's task.
func (m *Monitor) alert(t int64) {
	s := *m.state.Load()
	n := notice{Site: s.Site.Name, Server: s.Server, Servers: map[string]float64{}}
	for _, member := range s.Members {
		if p, ok := m.ring(member.Name).At(t); ok {
			n.Servers[member.Name] = float64(p.QPS)
			n.Value += float64(p.QPS)
		}
	}
	if len(n.Servers) == 0 {
		return
	}
	changed := m.step(t, n, sends(s))
	for _, n := range changed {
		m.note(time.Unix(t, 0), n.event().Text)
	}
	m.remember()
	m.flush(s)
}

// sends reports whether this server is the one that sends notices now.
func (m *Monitor) sends() bool { return sends(*m.state.Load()) }

// step returns a notice for each rule that begins or ceases to fire.
func (m *Monitor) step(t int64, n notice, mine bool) []notice {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []notice
	for _, r := range m.rules {
		n, known := m.measured(r, n, time.Unix(t, 0))
		if !known || !r.step(t, n.Value) {
			continue
		}
		n.Alert, n.Status, n.Threshold = r.Name, r.status(), r.Above
		n.Since = time.Unix(t, 0).UTC()
		out = append(out, n)
		if r.Webhook != "" {
			m.hold(n, mine)
		}
	}
	return out
}
