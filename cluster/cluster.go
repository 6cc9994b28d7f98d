// Package cluster is what the servers agree on: an embedded etcd with one
// member on each server. It is the only importer of etcd.
//
// Reads that are watched come from this server's own copy and go on without a
// quorum, only older; changes need two of three servers and are refused with
// ErrNoQuorum, within two seconds, when those are not there. What a server
// announces or acquires hangs on its lease and vanishes with it.
//
// A member listens on one port only, for its peers, by mutual TLS; there is no
// listener for clients and none for metrics. A peer must show an identity of
// part node (common name "node") from the site's authority for the address it
// comes from.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"

	"trivet/internal/part"
)

var (
	// ErrNoQuorum is why a change is refused; the error that wraps it says how many servers are reachable.
	ErrNoQuorum = errors.New("the cluster has no quorum")
	// ErrMissing is what Get returns for a key that does not exist.
	ErrMissing = errors.New("no such key")
	// ErrConflict is what Swap returns when the key was changed by another.
	ErrConflict = errors.New("changed by another in the meantime")
)

// Deadlines and sizes. See lease.go for those of the lease.
const (
	operationTimeout = 2 * time.Second
	retryMin         = 250 * time.Millisecond // between attempts to start the member
	retryMax         = 5 * time.Second
	dialTimeout      = 300 * time.Millisecond // to see who is reachable
)

// Member is one server's place in the cluster.
type Member struct{ Name, Address string }

// Config says who the members are and where this one keeps its data.
type Config struct {
	Name    string   // of this member, one of Members
	Members []Member // all of them; a data folder that exists already wins over the list
	Dir     string   // of the data, made with mode 0700
	Port    int      // that all members listen on for each other; 0 is part.PortCluster
	Cert    string   // file of this server's identity, reread at every handshake
	Key     string   // file of its private key, reread at every handshake
	CA      string   // file of the roots; a change of it restarts the member within caInterval
	Token   string   // of the cluster; members with another token do not talk to each other
	Log     *slog.Logger
}

// Cluster is this server's member and the view through it.
type Cluster struct {
	conf  Config
	lease lease

	mu      sync.Mutex
	running *member       // nil while no member runs
	changed chan struct{} // closed at each change of running

	reach reach
}

// New returns the cluster of c; Run starts it.
func New(c Config) *Cluster {
	if c.Port == 0 {
		c.Port = part.PortCluster
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Cluster{conf: c, changed: make(chan struct{}), lease: newLease()}
}

// Run starts this server's member and serves until ctx ends. What prevents the
// start (an address or file that is not there yet) is logged and tried again.
// The lease is left to end by itself, so that a node that restarts quickly
// loses nothing.
func (c *Cluster) Run(ctx context.Context) error {
	wait, last := retryMin, ""
	for ctx.Err() == nil {
		m, err := c.start()
		if err == nil {
			wait, last = retryMin, ""
			err = c.serve(ctx, m)
		}
		if err == nil {
			continue
		}
		if err.Error() != last {
			c.conf.Log.Warn("cluster member is down", "error", err)
			last = err.Error()
		}
		pause(ctx, wait+rand.N(wait/4))
		wait = min(2*wait, retryMax)
	}
	return nil
}

// serve lets m run until ctx ends (nil), its authority's file changed (nil) or it died.
func (c *Cluster) serve(ctx context.Context, m *member) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	c.set(m)
	wg.Go(func() { c.keepLease(ctx, m) })
	wg.Go(func() { c.keepAnnouncements(ctx) })
	err := m.wait(ctx)
	c.set(nil)
	cancel()
	wg.Wait()
	m.close()
	return err
}

func (c *Cluster) set(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = m
	close(c.changed)
	c.changed = make(chan struct{})
}

// member returns the running member, waiting for one until ctx ends.
func (c *Cluster) member(ctx context.Context) (*member, error) {
	for {
		c.mu.Lock()
		m, changed := c.running, c.changed
		c.mu.Unlock()
		if m != nil {
			return m, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// current returns the running member or nil.
func (c *Cluster) current() *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running
}

// Quorum reports whether the cluster can agree on changes now: there is a
// leader, and it confirmed this member's lease within the lease's lifetime. It
// costs next to nothing.
func (c *Cluster) Quorum() bool {
	m := c.current()
	return m != nil && m.etcd.Server.Lead() != 0 && c.LeaseValid()
}

// Check is nil when the member runs, the cluster has a quorum, and no member's
// store is full or damaged.
func (c *Cluster) Check(ctx context.Context) error {
	m := c.current()
	if m == nil {
		return errors.New("this server's member of the cluster is not running")
	}
	if !c.Quorum() {
		return c.noQuorum(ctx)
	}
	for _, a := range m.etcd.Server.Alarms() {
		return fmt.Errorf("the cluster's store raised an alarm: %s; it refuses changes", a.GetAlarm())
	}
	return nil
}

// ResignLeader hands the leadership to another member if this one has it. The
// holder of the floating address does so: leases of a dead leader last longer.
func (c *Cluster) ResignLeader(ctx context.Context) error {
	return c.do(ctx, "resign as leader", func(ctx context.Context, m *member) error { return m.resign(ctx) })
}

// do runs f on the member under the deadline of all operations, and makes the
// error plain.
func (c *Cluster) do(ctx context.Context, what string, f func(context.Context, *member) error) error {
	limited, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	m, err := c.member(limited)
	if err == nil {
		err = f(limited, m)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case unavailable(err) && c.Quorum():
		return fmt.Errorf("%s: the cluster did not answer in time: %w", what, err)
	case unavailable(err):
		return fmt.Errorf("%s: %w", what, c.noQuorum(ctx))
	}
	return fmt.Errorf("%s: %w", what, err)
}

// noQuorum says how many servers can be reached.
func (c *Cluster) noQuorum(ctx context.Context) error {
	n, all := c.reach.count(ctx, c.conf), len(c.conf.Members)
	if n > all/2 {
		return fmt.Errorf("%w: %d of %d servers reachable, but they have not agreed on a leader yet; try again in a moment", ErrNoQuorum, n, all)
	}
	return fmt.Errorf("%w: %d of %d servers reachable; changes are refused until another is back", ErrNoQuorum, n, all)
}

// reach counts the reachable members, at most once a second.
type reach struct {
	mu sync.Mutex
	at time.Time
	n  int
}

func (r *reach) count(ctx context.Context, conf Config) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.at.IsZero() && time.Since(r.at) < time.Second {
		return r.n
	}
	up := make(chan bool, len(conf.Members))
	for _, m := range conf.Members {
		go func() {
			up <- m.Name == conf.Name || reachable(ctx, net.JoinHostPort(m.Address, strconv.Itoa(conf.Port)))
		}()
	}
	r.n = 0
	for range conf.Members {
		if <-up {
			r.n++
		}
	}
	r.at = time.Now()
	return r.n
}

func reachable(ctx context.Context, address string) bool {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
