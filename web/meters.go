package web

import (
	"strconv"
	"sync"

	"trivet/internal/metric"
	"trivet/proxy"
	"trivet/proxy/edge"
	"trivet/proxy/upstream"
)

// meters are what the web server counts. Health checks are not counted: they
// are no visitor's.
type meters struct {
	visits   *edge.Meters // of visitors that the balancers pass through
	requests *metric.CounterVec
	seconds  metric.Histogram

	mu     sync.Mutex
	byCode map[int]metric.Counter
}

func newMeters(r *metric.Registry, pool *upstream.Pool) *meters {
	r.GaugeFunc("trivet_app_requests_in_flight", "Requests and tunnels that are with the app's instances on this server.",
		func() float64 { return float64(pool.InFlight()) })
	seconds := r.Histogram("trivet_web_request_seconds", "Time to answer a request, tunnels apart.")
	return &meters{
		visits:   edge.NewMeters(r),
		requests: r.Counter("trivet_web_requests_total", "Requests answered by the web server, by status.", "code"),
		seconds:  seconds.WithLabelValues().(metric.Histogram),
		byCode:   map[int]metric.Counter{},
	}
}

// count finds the counter of a status without making its label anew.
func (m *meters) count(status int) {
	m.mu.Lock()
	c := m.byCode[status]
	if c == nil {
		c = m.requests.WithLabelValues(strconv.Itoa(status))
		m.byCode[status] = c
	}
	m.mu.Unlock()
	c.Inc()
}

// done follows up each request.
func (w *Web) done(x *proxy.Exchange) {
	if x.Local == isCheck {
		return
	}
	w.meters.count(x.Status)
	if !x.Tunnel {
		w.meters.seconds.Observe(x.Times.Total.Seconds())
	}
	if v := w.now.Load(); v != nil {
		w.access.Write(v.form, x)
	}
}

// doneVisitor follows up each request of a visitor that came here unopened:
// what a balancer would count of it, too.
func (w *Web) doneVisitor(x *proxy.Exchange) {
	w.meters.visits.Count(x, string(w.now.Load().server), x.Local != nil)
	w.done(x)
}
