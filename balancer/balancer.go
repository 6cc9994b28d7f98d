// Package balancer takes the visitors' traffic and spreads it over the web
// servers of all servers.
//
// It never trusts what a visitor says of itself: forwarding headers and the
// request's name are its own, unless a proxy that the site trusts wrote them.
// It never waits for the control plane: the last state that was applied goes
// on serving, and whether a web server can be used is found out by asking it,
// not by asking the cluster.
//
// A backend is up, unwell (it answers its check, but not well) or down (it
// does not answer). Requests go to those that are up; if there is none, to
// those that are unwell, so that the app's own words reach the visitor; if
// there is none of these either, the visitor gets a short page, 503.
package balancer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"trivet/internal/metric"
	"trivet/internal/mtls"
	"trivet/internal/part"
	"trivet/proxy"
	"trivet/proxy/access"
	"trivet/proxy/edge"
	"trivet/proxy/ticket"
	"trivet/proxy/upstream"
	"trivet/site"
)

// Config is what a Balancer is made of.
type Config struct {
	Log         *slog.Logger
	Metrics     *metric.Registry
	HTTP, HTTPS net.Listener // Run closes them
	// QUIC is the packet socket of HTTP/3; nil: none. Run reads from it only once
	// Turn is closed, and closes it within two seconds of its context's end:
	// another process of the balancer may have it too.
	QUIC   net.PacketConn
	Turn   <-chan struct{}
	Access io.Writer // one line for each request; nil: none
}

const (
	// When a process makes room for the next, downloads and tunnels that are open
	// go on in it for as long as they need, within these.
	drainGrace  = time.Hour
	tunnelGrace = 24 * time.Hour
	linger      = 10 * time.Second // for kept connections, on which a visitor may send one more request
	backendIdle = 60 * time.Second // shorter than the web server keeps a connection
)

// Balancer is the balancer of one server. It is a part.Part and a part.Inspector.
type Balancer struct {
	log         *slog.Logger
	http, https net.Listener
	quic        net.PacketConn
	access      *access.Log
	meters      *meters
	identity    mtls.Source
	turn        <-chan struct{}
	visitors    *ticket.Door
	pool        *upstream.Pool // of web servers, by mutual TLS
	raw         *upstream.Pool // of the same, for connections that are passed through
	passing     passing
	web         *proxy.Forwarder
	now         atomic.Pointer[view]
	servers     atomic.Pointer[servers]
	ready       chan struct{} // closed by the first Apply
	once        sync.Once
	changed     chan struct{} // capacity 1: the backends may have changed
	serving     atomic.Bool
}

// view is what requests are answered by, between two Applies.
type view struct {
	site     *site.Site
	server   string
	members  []part.Member
	rules    *edge.Rules
	form     access.Form
	key      keyFunc
	sticky   sticky
	packets  []byte // secret of HTTP/3
	backends []*backend
}

// New returns a balancer that serves nothing yet.
func New(c Config) *Balancer {
	b := &Balancer{
		log: c.Log, http: c.HTTP, https: c.HTTPS, quic: c.QUIC, turn: c.Turn,
		access: access.New(c.Access),
		ready:  make(chan struct{}), changed: make(chan struct{}, 1),
	}
	b.visitors = ticket.New(b.met, "h2", "http/1.1")
	b.pool = upstream.NewPool(upstream.PoolConfig{Suspect: b.suspect, Changed: b.noteState})
	b.raw = upstream.NewPool(upstream.PoolConfig{Suspect: b.suspect})
	b.meters = newMeters(c.Metrics, b)
	b.web = &proxy.Forwarder{Pool: b.pool, Keep: edge.Keep, Fail: b.fail}
	return b
}

// Apply makes s what requests are answered by. Connections and requests that
// are under way are not touched.
func (b *Balancer) Apply(_ context.Context, s part.State) error {
	if s.Site == nil {
		return errors.New("apply state: it has no site")
	}
	if err := b.welcome(s); err != nil {
		return err
	}
	if err := b.identity.Set(s.Identity, s.Bundle); err != nil {
		return fmt.Errorf("set identity: %w", err)
	}
	v := &view{
		site: s.Site, server: s.Server, members: s.Members,
		rules: edge.New(s.Site, b.altSvc(s.Site)), form: access.FormOf(s.Site.Balancer.AccessLog),
		key: keyOf(s.Site.Balancer), sticky: newSticky(s), packets: packetSecret(s), backends: b.backends(s),
	}
	b.use(v)
	return nil
}

// welcome sets how visitors are met. A state without certificates does not
// take away those in force.
func (b *Balancer) welcome(s part.State) error {
	var pairs []ticket.Pair
	for _, c := range s.Certificates {
		pairs = append(pairs, ticket.Pair(c))
	}
	return b.visitors.Set(pairs, s.Secrets[part.SecretTicketKeys])
}

// use puts v in force.
func (b *Balancer) use(v *view) {
	b.now.Store(v)
	set := settings(v.site.Balancer)
	for _, k := range v.backends {
		set.Targets = append(set.Targets, k.target)
	}
	b.pool.Set(set)
	set.Targets = nil
	for _, k := range v.backends {
		set.Targets = append(set.Targets, k.raw)
	}
	b.raw.Set(set)
	if run := b.servers.Load(); run != nil {
		run.set(v.site.Balancer)
	}
	b.once.Do(func() { close(b.ready) })
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// settings are those of the pool of web servers.
func settings(c site.Balancer) upstream.Settings {
	return upstream.Settings{
		Policy:      policies[c.Policy],
		Retries:     c.Retries,
		RetryStatus: true,
		Budget:      float64(c.RetryBudget) / 100,
		Timeout:     c.Timeout.Std(),
		Patience:    c.Wait.Std(),
		InFlight:    c.InFlight,
		Queue:       c.Queue,
		Adaptive:    c.Adaptive,
		SlowStart:   c.SlowStart.Std(),
		Eject: upstream.Ejection{
			Errors: c.Eject.Errors, Slower: c.Eject.Slower, For: c.Eject.For.Std(), Most: c.Eject.Most,
		},
	}
}

var policies = map[string]upstream.Policy{
	"ewma": upstream.EWMA, "least": upstream.Least, "round-robin": upstream.RoundRobin, "hash": upstream.Hash,
}

// Run serves from the first Apply until ctx ends, then drains: what is under
// way goes on to its end. The backends are checked until
// the last request is done.
func (b *Balancer) Run(ctx context.Context) error {
	defer b.access.Flush()
	select {
	case <-b.ready:
	case <-ctx.Done():
		return errors.Join(b.http.Close(), b.https.Close())
	}
	checking, stopChecks := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { b.checkAll(checking) })
	err := b.serve(ctx)
	stopChecks()
	wg.Wait()
	return err
}

// Check is nil when visitors are answered and every web server of a live
// member is in service. A member that the cluster holds for dead is not the
// balancer's problem, nor is one that was drained.
func (b *Balancer) Check(context.Context) error {
	v := b.now.Load()
	switch {
	case v == nil:
		return errors.New("no state yet")
	case !b.serving.Load():
		return errors.New("not serving")
	case !b.visitors.Ready() && v.site.Balancer.TLS != site.TLSPassthrough:
		return fmt.Errorf("no certificate for %s yet", v.site.Domain)
	}
	return v.backendsWell()
}

// backendsWell says which backends are out of service and why.
func (v *view) backendsWell() error {
	up, out, alive := 0, []string(nil), map[string]bool{}
	for _, m := range v.members {
		alive[m.Name] = m.Alive && !m.Drained
	}
	for _, k := range v.backends {
		state, why := k.health()
		if state == upstream.Up {
			up++
		} else if alive[k.name] {
			out = append(out, fmt.Sprintf("web on %s is %s: %s", k.name, state, why))
		}
	}
	switch {
	case up == 0:
		return errors.New(strings.Join(append([]string{"no web server is in service"}, out...), "; "))
	case len(out) > 0:
		return errors.New(strings.Join(out, "; "))
	}
	return nil
}
