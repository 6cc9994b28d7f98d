// Package metric is how every process of trivet counts: counters, gauges and
// native histograms with Prometheus names, and the unix socket from which the
// monitor reads them once a second. It is the only importer of client_golang.
//
// Names start with trivet_ and end in their unit (_total, _seconds, _bytes).
// The monitor adds the labels server and process; do not set those yourself.
package metric

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The kinds of instruments. See client_golang for their methods.
type (
	Counter      = prometheus.Counter
	CounterVec   = prometheus.CounterVec
	Gauge        = prometheus.Gauge
	GaugeVec     = prometheus.GaugeVec
	Histogram    = prometheus.Histogram
	HistogramVec = prometheus.HistogramVec
	Labels       = prometheus.Labels
)

// Registry holds the instruments of one process. Make one in main, hand it to parts.
type Registry struct{ r *prometheus.Registry }

// NewRegistry returns an empty registry.
func NewRegistry() *Registry { return &Registry{r: prometheus.NewRegistry()} }

// Counter makes and registers a counter with the given label names.
func (r *Registry) Counter(name, help string, labels ...string) *CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	r.r.MustRegister(v)
	return v
}

// Gauge makes and registers a gauge with the given label names.
func (r *Registry) Gauge(name, help string, labels ...string) *GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	r.r.MustRegister(v)
	return v
}

// GaugeFunc registers a gauge whose value f is asked for at each reading.
func (r *Registry) GaugeFunc(name, help string, f func() float64) {
	r.r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
}

// CounterFunc registers a counter whose value f is asked for at each reading.
func (r *Registry) CounterFunc(name, help string, f func() float64) {
	r.r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f))
}

// Histogram makes and registers a native histogram (factor 1.1, at most 100
// buckets) of seconds with the given label names.
func (r *Registry) Histogram(name, help string, labels ...string) *HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help,
		NativeHistogramBucketFactor:    1.1,
		NativeHistogramMaxBucketNumber: 100,
	}, labels)
	r.r.MustRegister(v)
	return v
}

// Serve answers readings of r on the unix socket dir/process.sock until ctx
// ends. The socket is replaced if a dead process left it, and can be connected
// to by its owner and by group (if that group exists on the machine). At the
// end it is removed, unless it is another's by then.
func (r *Registry) Serve(ctx context.Context, dir, process, group string) error {
	path := filepath.Join(dir, process+".sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace metrics socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := share(path, group); err != nil {
		_ = l.Close()
		return fmt.Errorf("share metrics socket: %w", err)
	}
	defer removeOwn(path)()
	srv := &http.Server{
		Handler:           promhttp.HandlerFor(r.r, promhttp.HandlerOpts{DisableCompression: true}),
		ReadHeaderTimeout: time.Second,
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// removeOwn returns what removes the file that is at path now, and no later one.
func removeOwn(path string) func() {
	own, err := os.Lstat(path)
	return func() {
		if now, e := os.Lstat(path); err == nil && e == nil && os.SameFile(own, now) {
			_ = os.Remove(path)
		}
	}
}

func share(path, group string) error {
	if g, err := user.LookupGroup(group); err == nil {
		gid, err := strconv.Atoi(g.Gid)
		if err != nil {
			return err
		}
		// A worker is no member of the group; the folder's setgid bit has done it then.
		if err := os.Chown(path, -1, gid); err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return os.Chmod(path, 0o660)
}
