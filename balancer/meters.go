package balancer

import (
	"trivet/internal/metric"
	"trivet/proxy"
	"trivet/proxy/edge"
)

// meters are what the balancer counts.
type meters struct {
	visits    *edge.Meters
	up        *metric.GaugeVec
	changes   *metric.CounterVec
	ejections *metric.CounterVec
	passed    *metric.CounterVec
	refused   metric.Counter
}

func newMeters(r *metric.Registry, b *Balancer) *meters {
	r.GaugeFunc("trivet_queue", "Requests that wait for a web server.", func() float64 { return float64(b.pool.Status().Queued) })
	r.GaugeFunc("trivet_connections", "Visitors' connections open now.", func() float64 { return float64(b.connections()) })
	r.GaugeFunc("trivet_concurrency_limit", "Requests in flight that adaptive concurrency allows now; 0 is no limit.",
		func() float64 { return float64(b.pool.Status().Limit) })
	r.CounterFunc("trivet_shed_total", "Requests refused with 503 since too many were under way.",
		func() float64 { return float64(b.pool.Status().Shed) })
	return &meters{
		visits:    edge.NewMeters(r),
		up:        r.Gauge("trivet_backend_up", "Whether a web server is in service.", "backend"),
		changes:   r.Counter("trivet_backend_changes_total", "Changes of a web server's state, by the state that it entered.", "backend", "state"),
		ejections: r.Counter("trivet_ejections_total", "Web servers ejected by what visitors' requests met.", "backend"),
		passed:    r.Counter("trivet_passed_total", "Visitors' connections passed through to a web server unopened, by server.", "backend"),
		refused:   r.Counter("trivet_connections_refused_total", "Visitors' connections refused since too many were open.").WithLabelValues(),
	}
}

// count follows up each request.
func (b *Balancer) count(x *proxy.Exchange) {
	b.meters.visits.Count(x, x.Target, x.Local != nil)
	if v := b.now.Load(); v != nil {
		b.access.Write(v.form, x)
	}
}
