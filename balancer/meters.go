package balancer

import (
	"crypto/tls"
	"strconv"
	"sync"
	"time"

	"trivet/internal/metric"
	"trivet/proxy"
)

// meters are what the balancer counts.
type meters struct {
	requests   *metric.CounterVec
	seconds    metric.Histogram
	sent       metric.Counter
	received   metric.Counter
	retries    metric.Counter
	up         *metric.GaugeVec
	changes    *metric.CounterVec
	ejections  *metric.CounterVec
	inFlight   metric.Gauge
	handshakes *metric.CounterVec
	failed     metric.Counter
	passed     *metric.CounterVec
	refused    metric.Counter

	mu     sync.Mutex
	counts map[outcome]metric.Counter // of requests
}

// outcome is what requests are counted by.
type outcome struct {
	method  string // one of methods, or other
	status  int
	backend string
}

func newMeters(r *metric.Registry, b *Balancer) *meters {
	r.GaugeFunc("trivet_queue", "Requests that wait for a web server.", func() float64 { return float64(b.pool.Status().Queued) })
	r.GaugeFunc("trivet_connections", "Visitors' connections open now.", func() float64 { return float64(b.connections()) })
	r.GaugeFunc("trivet_concurrency_limit", "Requests in flight that adaptive concurrency allows now; 0 is no limit.",
		func() float64 { return float64(b.pool.Status().Limit) })
	r.CounterFunc("trivet_shed_total", "Requests refused with 503 since too many were under way.",
		func() float64 { return float64(b.pool.Status().Shed) })
	return &meters{
		requests: r.Counter("trivet_requests_total", "Visitors' requests answered, by method, status and server that answered.",
			"method", "code", "backend"),
		seconds:    r.Histogram("trivet_request_seconds", "Time to answer a visitor's request, tunnels apart.").WithLabelValues().(metric.Histogram),
		sent:       r.Counter("trivet_response_bytes_total", "Bytes of answers' bodies sent to visitors.").WithLabelValues(),
		received:   r.Counter("trivet_request_bytes_total", "Bytes of requests' bodies received from visitors.").WithLabelValues(),
		retries:    r.Counter("trivet_retries_total", "Further backends that requests were tried on.").WithLabelValues(),
		up:         r.Gauge("trivet_backend_up", "Whether a web server is in service.", "backend"),
		changes:    r.Counter("trivet_backend_changes_total", "Changes of a web server's state, by the state that it entered.", "backend", "state"),
		ejections:  r.Counter("trivet_ejections_total", "Web servers ejected by what visitors' requests met.", "backend"),
		inFlight:   r.Gauge("trivet_in_flight", "Visitors' requests and tunnels under way.").WithLabelValues(),
		handshakes: r.Counter("trivet_tls_handshakes_total", "TLS handshakes with visitors.", "version", "resumed"),
		failed:     r.Counter("trivet_tls_failures_total", "TLS handshakes with visitors that did not end.").WithLabelValues(),
		passed:     r.Counter("trivet_passed_total", "Visitors' connections passed through to a web server unopened, by server.", "backend"),
		refused:    r.Counter("trivet_connections_refused_total", "Visitors' connections refused since too many were open.").WithLabelValues(),
		counts:     map[outcome]metric.Counter{},
	}
}

// methodLabel is a method that has a label of its own, or "other": a visitor
// must not be able to make up labels.
func methodLabel(method []byte) string {
	for _, m := range [...]string{"GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		if string(method) == m {
			return m
		}
	}
	return "other"
}

func (m *meters) handshake(cs *tls.ConnectionState, err error) {
	if err != nil {
		m.failed.Inc()
		return
	}
	m.handshakes.WithLabelValues(tls.VersionName(cs.Version), strconv.FormatBool(cs.DidResume)).Inc()
}

// request finds the counter of an outcome without making its labels anew.
func (m *meters) request(o outcome) metric.Counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts[o]
	if c == nil {
		c = m.requests.WithLabelValues(o.method, strconv.Itoa(o.status), o.backend)
		m.counts[o] = c
	}
	return c
}

// count follows up each request.
func (b *Balancer) count(x *proxy.Exchange) {
	now := time.Now()
	m := b.meters
	if x.Local != nil { // else the request was not understood, and never entered
		m.inFlight.Dec()
	}
	m.request(outcome{methodLabel(x.Request.Method), x.Status, x.Target}).Inc()
	if x.Status != 101 {
		m.seconds.Observe(now.Sub(x.Begin).Seconds())
	}
	m.sent.Add(float64(x.Sent))
	m.received.Add(float64(x.Received))
	if x.Retries > 0 {
		m.retries.Add(float64(x.Retries))
	}
	if v := b.now.Load(); v != nil {
		b.access.Write(v.form, x, now)
	}
}
