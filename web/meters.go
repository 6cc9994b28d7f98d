package web

import (
	"strconv"
	"sync"
	"time"

	"trivet/internal/metric"
	"trivet/proxy"
	"trivet/proxy/upstream"
)

// meters are what the web server counts. Health checks are not counted: they
// are no visitor's.
type meters struct {
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
	now := time.Now()
	w.meters.count(x.Status)
	if x.Status != 101 {
		w.meters.seconds.Observe(now.Sub(x.Begin).Seconds())
	}
	if v := w.now.Load(); v != nil {
		w.access.Write(v.form, x, now)
	}
}
