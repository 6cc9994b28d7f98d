// Package web serves a site's files and hands everything else to the app's
// instances on the same server.
//
// It listens to the balancers only. A connection is mutual TLS with the
// identity of a balancer of the site, whose word for the visitor's address
// (X-Forwarded-For and the like) is therefore passed on to the app; or, with
// passthrough, it begins with a PROXY protocol header and then is a visitor's
// own TLS, which ends here.
//
// Files come from the release's folder static, out of an index that is built
// when a release arrives and swapped whole; a request that is under way ends
// with the files that it began with. Nothing outside the folder is ever
// opened, and names that begin with a dot are not served, save .well-known.
package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
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

// mostFields that a request may have.
const mostFields = 100

// Config is what a Web is made of.
type Config struct {
	Log      *slog.Logger
	Metrics  *metric.Registry
	Listener net.Listener // for the balancers, server:7080; Run closes it
	Access   io.Writer    // one line of JSON for each request; nil: none
}

const (
	drainGrace  = time.Hour        // downloads go on in a process that makes room for the next
	linger      = 10 * time.Second // of a balancer's kept connections, on which it may send one more request
	tunnelGrace = 24 * time.Hour   // a tunnel ends with its balancer's or the app's word; this is the last bound
	patience    = 2 * time.Second  // how long a request waits while no instance can take it
	idleTimeout = 2 * time.Minute  // longer than the balancer keeps a connection
	headTimeout = 10 * time.Second // for a balancer to send a request's head
	still       = 2 * time.Minute  // for a peer that neither sends what was announced nor takes what is sent
	appIdle     = 1500 * time.Millisecond
	appRefused  = 500 * time.Millisecond
	appRetries  = 2
)

// beyond is what a balancer adds to a request's head, and by how many fields.
const (
	beyondHead  = 16 << 10
	beyondCount = 32
)

// Web is the web server of one server. It is a part.Part.
type Web struct {
	log      *slog.Logger
	listener net.Listener
	access   *access.Log
	meters   *meters
	identity mtls.Source
	visitors *ticket.Door // TLS of visitors that the balancers pass through
	pool     *upstream.Pool
	app      *proxy.Forwarder // for what balancers ask
	edge     *proxy.Forwarder // for what visitors ask, whose word for themselves counts nothing
	now      atomic.Pointer[view]
	servers  atomic.Pointer[servers]
	checks   atomic.Uint32
	ready    chan struct{} // closed by the first Apply
	once     sync.Once
	serving  atomic.Bool
}

// view is what requests are answered by, between two Applies.
type view struct {
	site   *site.Site
	server []byte
	files  *index
	hasApp bool
	form   access.Form
	rules  *edge.Rules // for visitors that the balancers pass through
}

// New returns a web server that serves nothing yet.
func New(c Config) *Web {
	w := &Web{
		log: c.Log, listener: c.Listener,
		access:   access.New(c.Access),
		visitors: ticket.New(nil, "h2", "http/1.1"),
		pool:     upstream.NewPool(upstream.PoolConfig{}),
		ready:    make(chan struct{}),
	}
	w.meters = newMeters(c.Metrics, w.pool)
	w.app = &proxy.Forwarder{Pool: w.pool, Keep: keep, Fail: w.fail}
	w.edge = &proxy.Forwarder{Pool: w.pool, Keep: keepOfVisitor, Fail: w.fail}
	return w
}

// Apply makes s what requests are answered by.
func (w *Web) Apply(ctx context.Context, s part.State) error {
	if s.Site == nil {
		return errors.New("apply state: it has no site")
	}
	files, err := w.files(ctx, s)
	if err != nil {
		return fmt.Errorf("index static files: %w", err)
	}
	if err := w.identity.Set(s.Identity, s.Bundle); err != nil {
		return fmt.Errorf("set identity: %w", err)
	}
	if s.Site.Balancer.TLS == site.TLSPassthrough {
		if err := w.welcome(s); err != nil {
			return err
		}
	}
	w.pool.Set(upstream.Settings{
		Targets:     targets(w.pool.Targets(), s.Instances),
		Policy:      upstream.Least,
		Retries:     appRetries,
		Timeout:     s.Site.Balancer.Timeout.Std(),
		SkipRefused: appRefused,
		Patience:    patience,
	})
	w.now.Store(&view{
		site: s.Site, server: []byte(s.Server), files: files, hasApp: s.Site.App.Source != "",
		form: access.FormOf(s.Site.Balancer.AccessLog), rules: edge.New(s.Site, ""),
	})
	if run := w.servers.Load(); run != nil {
		run.set(s.Site.Balancer)
	}
	w.once.Do(func() { close(w.ready) })
	return nil
}

// welcome sets how visitors are met whose TLS comes through unopened.
func (w *Web) welcome(s part.State) error {
	var pairs []ticket.Pair
	for _, c := range s.Certificates {
		pairs = append(pairs, ticket.Pair(c))
	}
	return w.visitors.Set(pairs, s.Secrets[part.SecretTicketKeys])
}

// files returns the index for s, the present one if it is of the same files.
func (w *Web) files(ctx context.Context, s part.State) (*index, error) {
	if s.Release.Dir == "" {
		return &index{}, nil
	}
	source := source{dir: filepath.Join(s.Release.Dir, "static"), release: s.Release.Hash, page: s.Site.Web.Index}
	if v := w.now.Load(); v != nil && v.files.source == source {
		return v.files, nil
	}
	files, err := readIndex(ctx, source)
	if err != nil {
		return nil, err
	}
	w.log.Info("static files indexed", "release", s.Release.Hash, "files", len(files.files), "skipped", files.skipped)
	return files, nil
}

// Run serves from the first Apply until ctx ends, then drains: what is under
// way goes on to its end.
func (w *Web) Run(ctx context.Context) error {
	defer w.access.Flush()
	select {
	case <-w.ready:
	case <-ctx.Done():
		return w.listener.Close()
	}
	w.serving.Store(true)
	defer w.serving.Store(false)
	s, run := newSplit(w.listener), w.start()
	results := make(chan error, 2)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { results <- run.balancers.Serve(ctx, s.balancers) }()
	go func() { results <- run.visitors.Serve(ctx, s.visitors) }()
	splitting := make(chan error, 1)
	go func() { splitting <- s.run(ctx) }()
	err := <-splitting // nil once ctx has ended
	cancel()
	return errors.Join(err, <-results, <-results)
}

// start makes the servers, which an Apply may change from now on.
func (w *Web) start() *servers {
	c := w.now.Load().site.Balancer
	run := &servers{
		balancers: w.forBalancers(c, mtls.Server(&w.identity, part.Balancer)),
		visitors:  w.forVisitors(c, w.visitors.TLS()),
	}
	w.servers.Store(run)
	run.set(w.now.Load().site.Balancer) // an Apply may have come before the Store
	return run
}

// Check is nil when requests are answered and, if the site has an app, there
// is an instance to hand them to.
func (w *Web) Check(context.Context) error {
	v := w.now.Load()
	switch {
	case v == nil:
		return errors.New("no state yet")
	case !w.serving.Load():
		return errors.New("not serving")
	case v.hasApp && len(w.pool.Targets()) == 0:
		return errors.New("no instance of the app runs on this server")
	}
	return nil
}
