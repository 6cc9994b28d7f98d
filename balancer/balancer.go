// Package balancer takes the visitors' traffic and spreads it over the web
// servers of all servers.
//
// It never trusts what a visitor says of itself: forwarding headers and the
// request's name are its own. It never waits for the control plane: the last
// state that was applied goes on serving, and whether a web server can be used
// is found out by asking it, not by asking the cluster.
//
// A backend is up, unwell (it answers its check, but not well) or down (it
// does not answer). Requests go to those that are up; if there is none, to
// those that are unwell, so that the app's own words reach the visitor; if
// there is none of these either, the visitor gets a short page, 503.
package balancer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"trivet/internal/metric"
	"trivet/internal/mtls"
	"trivet/internal/part"
	proxy "trivet/oldproxy"
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
	Access io.Writer // one line of JSON for each request; nil: none
}

const (
	drainGrace    = 20 * time.Second
	patience      = 3 * time.Second // how long a request waits while no web server can take it
	headerBytes   = 64 << 10
	headerTimeout = 10 * time.Second
	idleTimeout   = 75 * time.Second
	backendIdle   = 60 * time.Second // shorter than the web server keeps a connection
	visitorsLimit = 10_000           // connections at a time; the newest is refused
	stillLimit    = 30 * time.Second // for a visitor who neither sends what was announced nor takes what is sent
)

// Balancer is the balancer of one server. It is a part.Part.
type Balancer struct {
	log         *slog.Logger
	http, https net.Listener
	access      *proxy.AccessLog
	meters      meters
	identity    mtls.Source
	pool        *proxy.Pool
	web         *proxy.Forwarder
	now         atomic.Pointer[view]
	ready       chan struct{} // closed by the first Apply
	once        sync.Once
	changed     chan struct{} // capacity 1: the backends may be others
	serving     atomic.Bool
}

// view is what requests are answered by, between two Applies.
type view struct {
	site         *site.Site
	members      []part.Member
	aliases      map[string]bool
	certificates certificates
	backends     []*backend
}

// New returns a balancer that serves nothing yet.
func New(c Config) *Balancer {
	b := &Balancer{
		log: c.Log, http: c.HTTP, https: c.HTTPS,
		access: proxy.NewAccessLog(c.Access), meters: newMeters(c.Metrics),
		ready: make(chan struct{}), changed: make(chan struct{}, 1),
	}
	b.pool = proxy.NewPool(b.suspect)
	b.web = proxy.NewForwarder(proxy.ForwarderConfig{Log: c.Log, Pool: b.pool, Rewrite: rewrite, Fail: b.fail})
	return b
}

// Apply makes s what requests are answered by. Connections and requests that
// are under way are not touched.
func (b *Balancer) Apply(_ context.Context, s part.State) error {
	if s.Site == nil {
		return errors.New("apply state: it has no site")
	}
	v := &view{site: s.Site, members: s.Members, aliases: map[string]bool{}}
	for _, a := range s.Site.Aliases {
		v.aliases[strings.ToLower(a)] = true
	}
	var err error
	if v.certificates, err = b.certificates(s.Certificates); err != nil {
		return fmt.Errorf("read certificates: %w", err)
	}
	if err := b.identity.Set(s.Identity, s.Bundle); err != nil {
		return fmt.Errorf("set identity: %w", err)
	}
	v.backends = b.backends(s.Members)
	b.use(v)
	return nil
}

// use puts v in force.
func (b *Balancer) use(v *view) {
	targets := make([]*proxy.Target, len(v.backends))
	for i, k := range v.backends {
		targets[i] = k.target
	}
	b.now.Store(v)
	b.pool.Set(proxy.Settings{
		Targets:     targets,
		Retries:     v.site.Balancer.Retries,
		RetryStatus: true,
		Timeout:     v.site.Balancer.Timeout.Std(),
		Patience:    patience,
	})
	b.once.Do(func() { close(b.ready) })
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// Run serves from the first Apply until ctx ends, then drains for up to 20 s.
// The backends are checked until the last request is done.
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

// serve runs both listeners; if one breaks, both end.
func (b *Balancer) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.serving.Store(true)
	defer b.serving.Store(false)
	limit := proxy.NewLimit(visitorsLimit, b.meters.refused.Inc)
	plain, secure := limit.Listener(b.http), limit.Listener(b.https)
	results := make(chan error, 2)
	go func() { results <- proxy.Serve(ctx, b.server(b.redirect, nil), plain, drainGrace) }()
	go func() { results <- proxy.Serve(ctx, b.server(b.answer, b.tls()), secure, drainGrace) }()
	first := <-results
	cancel()
	return errors.Join(first, <-results)
}

func (b *Balancer) server(h http.HandlerFunc, secure *tls.Config) *http.Server {
	return &http.Server{
		Handler:           proxy.Progress(stillLimit, b.observer(secure != nil).Wrap(h)),
		TLSConfig:         secure,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytes,
		HTTP2:             &http.HTTP2Config{WriteByteTimeout: stillLimit}, // where even the end of a stream cannot be sent
		ErrorLog:          slog.NewLogLogger(b.log.Handler(), slog.LevelDebug),
	}
}

// Check is nil when visitors are answered and every web server of a live
// member is in service. A member that the cluster holds for dead is not the
// balancer's problem.
func (b *Balancer) Check(context.Context) error {
	v := b.now.Load()
	switch {
	case v == nil:
		return errors.New("no state yet")
	case !b.serving.Load():
		return errors.New("not serving")
	case len(v.certificates) == 0:
		return fmt.Errorf("no certificate for %s yet", v.site.Domain)
	}
	return v.backendsWell()
}

// backendsWell says which backends are out of service and why.
func (v *view) backendsWell() error {
	up, out, alive := 0, []string(nil), map[string]bool{}
	for _, m := range v.members {
		alive[m.Name] = m.Alive
	}
	for _, k := range v.backends {
		state, why := k.health()
		if state == proxy.Up {
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
