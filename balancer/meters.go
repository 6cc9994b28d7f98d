package balancer

import (
	"crypto/tls"
	"net/http"
	"strconv"

	"trivet/internal/metric"
	proxy "trivet/oldproxy"
)

// meters are what the balancer counts.
type meters struct {
	requests   *metric.CounterVec
	seconds    *metric.HistogramVec
	bytes      metric.Counter
	retries    metric.Counter
	up         *metric.GaugeVec
	inFlight   metric.Gauge
	handshakes *metric.CounterVec
	refused    metric.Counter
}

func newMeters(r *metric.Registry) meters {
	return meters{
		requests:   r.Counter("trivet_requests_total", "Visitors' requests answered, by method and status.", "method", "code"),
		seconds:    r.Histogram("trivet_request_seconds", "Time to answer a visitor's request, tunnels apart."),
		bytes:      r.Counter("trivet_response_bytes_total", "Bytes of answers' bodies sent to visitors.").WithLabelValues(),
		retries:    r.Counter("trivet_retries_total", "Further backends that requests were tried on.").WithLabelValues(),
		up:         r.Gauge("trivet_backend_up", "Whether a web server is in service.", "backend"),
		inFlight:   r.Gauge("trivet_in_flight", "Visitors' requests and tunnels under way.").WithLabelValues(),
		handshakes: r.Counter("trivet_tls_handshakes_total", "TLS handshakes with visitors.", "version", "resumed"),
		refused:    r.Counter("trivet_connections_refused_total", "Visitors' connections refused since too many were open.").WithLabelValues(),
	}
}

// methods are those that have a label of their own; the rest is "other", for a
// visitor must not be able to make up labels.
var methods = map[string]bool{
	http.MethodGet: true, http.MethodHead: true, http.MethodPost: true, http.MethodPut: true,
	http.MethodPatch: true, http.MethodDelete: true, http.MethodOptions: true,
}

func methodLabel(method string) string {
	if methods[method] {
		return method
	}
	return "other"
}

func (m meters) handshake(cs tls.ConnectionState) {
	m.handshakes.WithLabelValues(tls.VersionName(cs.Version), strconv.FormatBool(cs.DidResume)).Inc()
}

// observer follows each request for the meters and the access log, and stamps
// what every answer carries.
func (b *Balancer) observer(secure bool) proxy.Observer {
	return proxy.Observer{
		Begin: func(x *proxy.Exchange) {
			x.ID = newID()
			b.meters.inFlight.Inc()
		},
		Stamp: func(x *proxy.Exchange, h http.Header) {
			h.Set("X-Request-Id", x.ID)
			if secure && h.Get("Strict-Transport-Security") == "" {
				h.Set("Strict-Transport-Security", hsts)
			}
		},
		End: b.count,
	}
}

func (b *Balancer) count(x *proxy.Exchange) {
	b.meters.inFlight.Dec()
	b.meters.requests.WithLabelValues(methodLabel(x.Request.Method), strconv.Itoa(x.Status)).Inc()
	if x.Status != http.StatusSwitchingProtocols {
		b.meters.seconds.WithLabelValues().Observe(x.Duration.Seconds())
	}
	b.meters.bytes.Add(float64(x.Bytes))
	b.meters.retries.Add(float64(x.Retries))
	b.access.Write(x)
}
