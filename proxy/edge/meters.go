package edge

import (
	"crypto/tls"
	"strconv"
	"sync"

	"trivet/internal/metric"
	"trivet/proxy"
)

// Meters count visitors' requests where they arrive. The names are the same
// wherever that is, so that the monitor finds them in either part.
type Meters struct {
	requests *metric.CounterVec
	seconds  metric.Histogram
	sent     metric.Counter
	received metric.Counter
	inFlight metric.Gauge
	retries  metric.Counter
	met      *metric.CounterVec // handshakes
	failed   metric.Counter

	mu     sync.Mutex
	counts map[outcome]metric.Counter // of requests
}

// outcome is what requests are counted by.
type outcome struct {
	method  string // one of those with a label of their own, or other
	status  int
	backend string
}

// NewMeters registers them with r.
func NewMeters(r *metric.Registry) *Meters {
	return &Meters{
		requests: r.Counter("trivet_requests_total", "Visitors' requests answered, by method, status and server that answered.",
			"method", "code", "backend"),
		seconds:  r.Histogram("trivet_request_seconds", "Time to answer a visitor's request, tunnels apart.").WithLabelValues().(metric.Histogram),
		sent:     r.Counter("trivet_response_bytes_total", "Bytes of answers' bodies sent to visitors.").WithLabelValues(),
		received: r.Counter("trivet_request_bytes_total", "Bytes of requests' bodies received from visitors.").WithLabelValues(),
		inFlight: r.Gauge("trivet_in_flight", "Visitors' requests and tunnels under way.").WithLabelValues(),
		retries:  r.Counter("trivet_retries_total", "Further servers that visitors' requests were tried on.").WithLabelValues(),
		met:      r.Counter("trivet_tls_handshakes_total", "TLS handshakes with visitors.", "version", "resumed"),
		failed:   r.Counter("trivet_tls_failures_total", "TLS handshakes with visitors that did not end.").WithLabelValues(),
		counts:   map[outcome]metric.Counter{},
	}
}

// Handshake counts a visitor's TLS handshake.
func (m *Meters) Handshake(cs *tls.ConnectionState, err error) {
	if err != nil {
		m.Failed()
		return
	}
	m.met.WithLabelValues(tls.VersionName(cs.Version), strconv.FormatBool(cs.DidResume)).Inc()
}

// Failed counts a handshake that came to nothing.
func (m *Meters) Failed() { m.failed.Inc() }

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

// Enter counts a request in.
func (m *Meters) Enter() { m.inFlight.Inc() }

// Count follows up x, which was answered by backend. entered: Enter was called
// for it, so it was understood.
func (m *Meters) Count(x *proxy.Exchange, backend string, entered bool) {
	if entered {
		m.inFlight.Dec()
	}
	m.request(outcome{methodLabel(x.Request.Method), x.Status, backend}).Inc()
	if !x.Tunnel {
		m.seconds.Observe(x.Times.Total.Seconds())
	}
	m.sent.Add(float64(x.Sent))
	m.received.Add(float64(x.Received))
	if x.Retries > 0 {
		m.retries.Add(float64(x.Retries))
	}
}

// request finds the counter of an outcome without making its labels anew.
func (m *Meters) request(o outcome) metric.Counter {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts[o]
	if c == nil {
		c = m.requests.WithLabelValues(o.method, strconv.Itoa(o.status), o.backend)
		m.counts[o] = c
	}
	return c
}
