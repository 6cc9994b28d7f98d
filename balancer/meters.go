package balancer

import (
	"crypto/tls"
	"strconv"

	"trivet/internal/metric"
	"trivet/proxy"
	"trivet/proxy/edge"
)

// meters are what the balancer counts.
type meters struct {
	visits     *edge.Meters
	retries    metric.Counter
	up         *metric.GaugeVec
	changes    *metric.CounterVec
	ejections  *metric.CounterVec
	handshakes *metric.CounterVec
	failed     metric.Counter
	passed     *metric.CounterVec
	refused    metric.Counter
}

func newMeters(r *metric.Registry, b *Balancer) *meters {
	r.GaugeFunc("trivet_queue", "Requests that wait for a web server.", func() float64 { return float64(b.pool.Status().Queued) })
	r.GaugeFunc("trivet_connections", "Visitors' connections open now.", func() float64 { return float64(b.connections()) })
	r.GaugeFunc("trivet_concurrency_limit", "Requests in flight that adaptive concurrency allows now; 0 is no limit.",
		func() float64 { return float64(b.pool.Status().Limit) })
	r.CounterFunc("trivet_shed_total", "Requests refused with 503 since too many were under way.",
		func() float64 { return float64(b.pool.Status().Shed) })
	return &meters{
		visits:     edge.NewMeters(r),
		retries:    r.Counter("trivet_retries_total", "Further backends that requests were tried on.").WithLabelValues(),
		up:         r.Gauge("trivet_backend_up", "Whether a web server is in service.", "backend"),
		changes:    r.Counter("trivet_backend_changes_total", "Changes of a web server's state, by the state that it entered.", "backend", "state"),
		ejections:  r.Counter("trivet_ejections_total", "Web servers ejected by what visitors' requests met.", "backend"),
		handshakes: r.Counter("trivet_tls_handshakes_total", "TLS handshakes with visitors.", "version", "resumed"),
		failed:     r.Counter("trivet_tls_failures_total", "TLS handshakes with visitors that did not end.").WithLabelValues(),
		passed:     r.Counter("trivet_passed_total", "Visitors' connections passed through to a web server unopened, by server.", "backend"),
		refused:    r.Counter("trivet_connections_refused_total", "Visitors' connections refused since too many were open.").WithLabelValues(),
	}
}

func (m *meters) handshake(cs *tls.ConnectionState, err error) {
	if err != nil {
		m.failed.Inc()
		return
	}
	m.handshakes.WithLabelValues(tls.VersionName(cs.Version), strconv.FormatBool(cs.DidResume)).Inc()
}

// count follows up each request.
func (b *Balancer) count(x *proxy.Exchange) {
	m := b.meters
	m.visits.Count(x, x.Target, x.Local != nil)
	if x.Retries > 0 {
		m.retries.Add(float64(x.Retries))
	}
	if v := b.now.Load(); v != nil {
		b.access.Write(v.form, x)
	}
}
