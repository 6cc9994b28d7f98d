// Package web serves a site's files and hands everything else to the app's
// instances on the same server.
//
// It listens to the balancers only: every connection is mutual TLS with the
// identity of a balancer of the site. What they say of the visitor's address
// (X-Forwarded-For and the like) is therefore passed on to the app.
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
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"trivet/internal/metric"
	"trivet/internal/mtls"
	"trivet/internal/part"
	proxy "trivet/oldproxy"
	"trivet/site"
)

// Config is what a Web is made of.
type Config struct {
	Log      *slog.Logger
	Metrics  *metric.Registry
	Listener net.Listener // for the balancers, server:7080; Run closes it
	Access   io.Writer    // one line of JSON for each request; nil: none
}

const (
	drainGrace  = 20 * time.Second
	patience    = 2 * time.Second  // how long a request waits while no instance can take it
	headerBytes = 80 << 10         // more than the balancer's, which adds to it
	idleTimeout = 2 * time.Minute  // longer than the balancer keeps a connection
	headTimeout = 10 * time.Second // for a balancer to send a request's head
	appIdle     = 1500 * time.Millisecond
	appRefused  = 500 * time.Millisecond
	appRetries  = 2
)

// Web is the web server of one server. It is a part.Part.
type Web struct {
	log      *slog.Logger
	listener net.Listener
	access   *proxy.AccessLog
	meters   meters
	identity mtls.Source
	pool     *proxy.Pool
	app      *proxy.Forwarder
	now      atomic.Pointer[view]
	ready    chan struct{} // closed by the first Apply
	once     sync.Once
	serving  atomic.Bool
}

// view is what requests are answered by, between two Applies.
type view struct {
	site   *site.Site
	server string
	files  *index
	hasApp bool
}

// New returns a web server that serves nothing yet.
func New(c Config) *Web {
	w := &Web{
		log: c.Log, listener: c.Listener,
		access: proxy.NewAccessLog(c.Access),
		pool:   proxy.NewPool(nil),
		ready:  make(chan struct{}),
	}
	w.meters = newMeters(c.Metrics, w.pool)
	w.app = proxy.NewForwarder(proxy.ForwarderConfig{Log: c.Log, Pool: w.pool, Rewrite: rewrite, Fail: w.fail})
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
	w.pool.Set(proxy.Settings{
		Targets:     targets(w.pool.Targets(), s.Instances),
		Retries:     appRetries,
		Timeout:     s.Site.Balancer.Timeout.Std(),
		SkipRefused: appRefused,
		Patience:    patience,
	})
	w.now.Store(&view{site: s.Site, server: s.Server, files: files, hasApp: s.Site.App.Source != ""})
	w.once.Do(func() { close(w.ready) })
	return nil
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

// Run serves from the first Apply until ctx ends, then drains for up to 20 s.
func (w *Web) Run(ctx context.Context) error {
	defer w.access.Flush()
	select {
	case <-w.ready:
	case <-ctx.Done():
		return w.listener.Close()
	}
	w.serving.Store(true)
	defer w.serving.Store(false)
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	return proxy.Serve(ctx, &http.Server{
		Handler:           w.observer().Wrap(http.HandlerFunc(w.answer)),
		TLSConfig:         mtls.Server(&w.identity, part.Balancer),
		Protocols:         http1,
		ReadHeaderTimeout: headTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          slog.NewLogLogger(w.log.Handler(), slog.LevelDebug),
	}, w.listener, drainGrace)
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
