// Package node is one server's root process: it orders, runs, adopts and
// checks the parts, and holds what the cluster agrees on.
//
// It parses nothing that a visitor sent. It may be killed at any time: all
// that serves goes on, and the next node adopts it. Two ways end it: SIGTERM
// leaves the server running (an upgrade), Stop ends the server's parts too.
package node

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"trivet/app"
	"trivet/certificate"
	"trivet/cluster"
	"trivet/database"
	"trivet/database/backup"
	"trivet/firewall"
	"trivet/internal/metric"
	"trivet/internal/mtls"
	"trivet/internal/pace"
	"trivet/internal/part"
	"trivet/internal/worker"
)

// Config is what a node needs besides the files in part.LibDir.
type Config struct {
	Executable string // the trivet binary, for the workers
	Version    string
	Build      string // names the binary by its content; see package binary
	Log        *slog.Logger
}

// Identity names the server; IdentityFile holds it as JSON.
type Identity struct {
	Name   string `json:"name"`
	Shared int    `json:"shared,omitempty"` // how many servers share the machine; 0: it has its own
}

// Node is one server's root process.
type Node struct {
	cfg     Config
	log     *slog.Logger
	name    string
	shared  int // how many servers share the machine
	metrics *metric.Registry

	cluster  *cluster.Cluster
	certs    *certificate.Certificates
	app      *app.App
	database *database.Database
	firewall *firewall.Firewall
	workers  map[string]*worker.Worker
	drivers  map[string]*driver // by part, and the router
	up       *metric.GaugeVec
	releases *releases
	source   *mtls.Source

	wake     chan struct{} // recompose the State
	say      chan live     // newest wins: what to announce
	toHolder chan part.State

	mu       sync.Mutex
	agreed   agreed
	role     cluster.Value       // of the database, as the cluster last said
	member   part.DatabaseMember // what the database said of itself
	accepts  string              // this and what follows: see part.Member
	uses     string
	holds    int64
	composed part.State
	lost     time.Time // since when there is no quorum; zero while there is
}

// Load reads the server's files and builds its parts; nothing is started.
func Load(cfg Config) (*Node, error) {
	var who Identity
	data, err := os.ReadFile(filepath.Join(part.LibDir, IdentityFile))
	if err == nil {
		err = json.Unmarshal(data, &who)
	}
	if err != nil {
		return nil, fmt.Errorf("read this server's identity: %w", err)
	}
	last, err := load(filepath.Join(part.LibDir, LastGoodFile))
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, log: cfg.Log, name: who.Name, shared: who.Shared, metrics: metric.NewRegistry(),
		workers: map[string]*worker.Worker{}, drivers: map[string]*driver{}, source: &mtls.Source{},
		wake: make(chan struct{}, 1), say: make(chan live, 1), toHolder: make(chan part.State, 1),
		agreed: last,
	}
	if err := n.build(); err != nil {
		return nil, err
	}
	return n, nil
}

// Run keeps the server's parts running until ctx ends; they then go on by
// themselves. It returns an error only if the node itself cannot go on.
func (n *Node) Run(ctx context.Context) error {
	if err := prepare(); err != nil {
		return err
	}
	n.compose()
	// Nothing can speak to a peer before there are identities.
	if err := n.certs.Apply(ctx, n.state()); err != nil {
		return err
	}
	// And no port may be open before its walls are up.
	if err := n.firewall.Apply(ctx, cut(part.Firewall, n.state(), n.certs)); err != nil {
		return fmt.Errorf("apply firewall before anything listens: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	n.start(ctx, cancel, &wg)
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, errStopped) {
		return err
	}
	return nil
}

// errStopped is the cause when the caller's context ended.
var errStopped = errors.New("node was asked to end")

// start starts everything that runs until ctx ends; what cannot go on cancels all with its reason.
func (n *Node) start(ctx context.Context, fail context.CancelCauseFunc, wg *sync.WaitGroup) {
	vital := func(what string, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				fail(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	vital("cluster", n.cluster.Run)
	vital("control socket", n.serveControl)
	vital("metrics", func(ctx context.Context) error {
		return n.metrics.Serve(ctx, part.MetricsDir, part.Node, part.UserMonitor)
	})
	for _, d := range n.drivers {
		wg.Go(func() { d.run(ctx) })
		vital(d.name, d.part.Run)
	}
	wg.Go(func() { n.releases.run(ctx) })
	wg.Go(func() { n.rotateLogs(ctx) })
	wg.Go(func() { n.announce(ctx) })
	wg.Go(func() { n.recompose(ctx) })
	wg.Go(func() { n.cluster.Watch(ctx, statePrefix, n.watched) })
	wg.Go(func() { n.found(ctx) })
	wg.Go(func() { n.renew(ctx) })
	wg.Go(func() { n.rotateTickets(ctx) })
	wg.Go(func() { n.rotatePassword(ctx) })
	a := &address{server: n.name, cluster: n.cluster, log: n.log.With("part", part.Balancer), serving: n.workers[part.Balancer].Serving}
	wg.Go(func() { a.run(ctx, n.toHolder) })
}

// Stop ends the server's parts, in the order in which requests pass them, so
// that each still has what it needs to finish. Call it after Run has returned.
//
// What visitors wait for gets little time and the database its own, whatever
// the others took: a request cut short is tried again, a database killed has to
// recover. All together is less than the 20 s that a server has; see lab.Init.
func (n *Node) Stop(ctx context.Context) error {
	return errors.Join(
		atOnce(ctx, stopServing, n.stopWorker(part.Balancer), n.stopWorker(part.Web)),
		atOnce(ctx, stopApp, n.app.Stop),
		atOnce(ctx, stopDatabase, n.stopDatabase, n.stopWorker(part.Monitor)),
	)
}

// How long each step of Stop may take.
const (
	stopServing  = 4 * time.Second
	stopApp      = 3 * time.Second
	stopRouter   = time.Second
	stopDatabase = 11 * time.Second // the router's included
)

func (n *Node) stopDatabase(ctx context.Context) error {
	return errors.Join(
		atOnce(ctx, stopRouter, func(ctx context.Context) error { return n.workers[part.Router].Stop(ctx, stopRouter) },
			func(ctx context.Context) error { return n.workers[part.Backup].Stop(ctx, stopRouter) }),
		n.database.Stop(ctx))
}

func (n *Node) stopWorker(name string) func(context.Context) error {
	return func(ctx context.Context) error { return n.workers[name].Stop(ctx, stopServing-time.Second) }
}

// atOnce calls all stops at the same time, each within limit, even if ctx has ended.
func atOnce(ctx context.Context, limit time.Duration, stops ...func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	errs := make([]error, len(stops))
	var wg sync.WaitGroup
	for i, stop := range stops {
		wg.Go(func() { errs[i] = stop(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// kick has the State composed anew soon.
func (n *Node) kick() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// recompose composes and hands out the State whenever something has changed.
func (n *Node) recompose(ctx context.Context) {
	due := time.NewTimer(0)
	defer due.Stop()
	running := newPIDs(n.metrics, recordsDir)
	for {
		n.compose()
		n.distribute()
		n.provide(ctx)
		running.look()
		wait := pace.Next(2 * time.Second) // quorum changes without an event
		if !n.state().Quorum {
			wait = provisionalAfter / 5
		}
		due.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		case <-due.C:
		}
	}
}

// compose makes the State from what is agreed and what is known here.
func (n *Node) compose() {
	l := local{server: n.name, quorum: n.cluster.Quorum(), instances: n.app.Instances()}
	problems, revision := n.problems()
	n.mu.Lock()
	defer n.mu.Unlock()
	l.alone = n.alone(l.quorum, time.Now())
	l.live = live{Database: n.member, Revision: revision, Problems: problems, Accepts: n.accepts, Uses: n.uses, Holds: n.holds}
	n.releases.wanted(n.agreed.Declared.Release, n.peers())
	l.release = n.releases.current()
	n.composed = compose(l, n.agreed)
	select {
	case <-n.say:
	default:
	}
	n.say <- l.live
}

// staleAfter is how long without quorum what others said of themselves still counts.
const staleAfter = 3 * time.Second

// alone reports whether quorum has been lost for so long that the others' last words are stale; n.mu is held.
func (n *Node) alone(quorum bool, now time.Time) bool {
	switch {
	case quorum:
		n.lost = time.Time{}
	case n.lost.IsZero():
		n.lost = now
	}
	return !quorum && now.Sub(n.lost) >= staleAfter
}

// peers are the other servers of the site; n.mu is held.
func (n *Node) peers() []part.Member {
	var out []part.Member
	for _, s := range n.agreed.Declared.Site.Servers {
		if s.Name != n.name {
			out = append(out, part.Member{Name: s.Name, Address: s.Address})
		}
	}
	return out
}

// distribute offers every part its cut of the State.
func (n *Node) distribute() {
	s := n.state()
	if err := n.source.Set(n.certs.Identity(part.Node), n.certs.Bundle()); err != nil {
		n.log.Error("use own identity", "err", err)
	}
	for name, d := range n.drivers {
		d.offer(cut(name, s, n.certs))
	}
	select {
	case <-n.toHolder:
	default:
	}
	n.toHolder <- s
}

func (n *Node) state() part.State {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.composed
}

func (n *Node) declared() Declared {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.agreed.Declared
}

// health is why a part is not well; the router counts to the database, a missing release to the app.
func (n *Node) health(name string) (problem string, since time.Time) {
	problem, since = n.drivers[name].health()
	if problem == "" && name == part.Database {
		if problem, since = n.drivers[part.Router].health(); problem != "" {
			problem = "router: " + problem
		}
	}
	if problem == "" && name == part.Database {
		if problem, since = n.drivers[part.Backup].health(); problem != "" {
			problem = "backup: " + problem
		}
	}
	if hash, _ := n.releases.missing(); hash != "" && name == part.App {
		problem = "release " + short(hash) + " is not on this server yet; fetching it from its peers"
	}
	return problem, since
}

// problems of all parts, and the newest revision that all have applied.
func (n *Node) problems() (map[string]string, int64) {
	var problems map[string]string
	for _, name := range part.Names {
		p, _ := n.health(name)
		up := 1.0
		if p != "" {
			if problems == nil {
				problems = map[string]string{}
			}
			problems[name] = p
			up = 0
		}
		n.up.WithLabelValues(name).Set(up)
	}
	revision := n.drivers[part.Balancer].revision()
	for _, d := range n.drivers {
		revision = min(revision, d.revision())
	}
	return problems, revision
}

// watched takes the cluster's newest content.
func (n *Node) watched(content map[string]cluster.Value) {
	n.mu.Lock()
	a, err := parse(n.agreed, content)
	before, errBefore := json.Marshal(n.agreed)
	after, errAfter := json.Marshal(a)
	n.agreed, n.role = a, content[keyDatabase]
	n.mu.Unlock()
	n.kick() // before anything waits for the disk
	if err != nil {
		n.log.Error("read agreed state", "err", err)
	}
	if errBefore != nil || errAfter != nil || string(before) != string(after) {
		if err := a.save(filepath.Join(part.LibDir, LastGoodFile)); err != nil {
			n.log.Error("keep last good state", "err", err)
		}
	}
}

// lookLimit is how long a new node may look at its database before it speaks of the rest.
const lookLimit = 4 * time.Second

// announce tells the others of this server, newest first, until ctx ends.
//
// A node that replaces another says nothing before it has looked at its
// database: until then the word of the one before stands, as long as its lease
// does, so that a running writer is not taken for one that has none.
func (n *Node) announce(ctx context.Context) {
	var told string
	begun := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-n.say:
			data, err := json.Marshal(l)
			if err != nil || string(data) == told {
				continue
			}
			if l.Database.State == part.DatabaseUnknown && time.Since(begun) < lookLimit {
				continue
			}
			if err := n.cluster.Announce(ctx, prefixLive+n.name, data); err != nil {
				n.log.Debug("announce", "err", err)
				continue
			}
			told = string(data)
		}
	}
}

// found brings what this server knows into a cluster that is empty: the site,
// and secrets that all servers share. Whoever comes first is followed.
func (n *Node) found(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := n.foundOnce(ctx)
		if err == nil {
			return
		}
		n.log.Debug("bring the site into the cluster", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (n *Node) foundOnce(ctx context.Context) error {
	for _, name := range []string{part.SecretConsoleKey, part.SecretAppDatabase, part.SecretReader, part.SecretSticky} {
		if err := n.once(ctx, prefixSecret+name, []byte(rand.Text())); err != nil {
			return err
		}
	}
	sealing, err := backup.NewKey()
	if err != nil {
		return err
	}
	if err := n.once(ctx, prefixSecret+part.SecretBackup, []byte(sealing)); err != nil {
		return err
	}
	tickets, err := json.Marshal(renew(nil, time.Now(), freshTicket()))
	if err != nil {
		return err
	}
	if err := n.once(ctx, keyTickets, tickets); err != nil {
		return err
	}
	made, err := json.Marshal(rotation{At: time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := n.once(ctx, keyRotation, made); err != nil {
		return err
	}
	d := n.declared()
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return n.once(ctx, keyDeclared, data)
}

// once puts data under key if there is nothing yet.
func (n *Node) once(ctx context.Context, key string, data []byte) error {
	_, err := n.cluster.Swap(ctx, key, 0, data)
	if errors.Is(err, cluster.ErrConflict) {
		return nil
	}
	return err
}
