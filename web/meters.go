package web

import (
	"net/http"
	"strconv"

	"trivet/internal/metric"
	proxy "trivet/oldproxy"
)

// meters are what the web server counts. Health checks are not counted: they
// are no visitor's.
type meters struct {
	requests *metric.CounterVec
	seconds  metric.Histogram
}

func newMeters(r *metric.Registry, pool *proxy.Pool) meters {
	r.GaugeFunc("trivet_app_requests_in_flight", "Requests and tunnels that are with the app's instances on this server.",
		func() float64 { return float64(pool.InFlight()) })
	seconds := r.Histogram("trivet_web_request_seconds", "Time to answer a request, tunnels apart.")
	return meters{
		requests: r.Counter("trivet_web_requests_total", "Requests answered by the web server, by status.", "code"),
		seconds:  seconds.WithLabelValues().(metric.Histogram),
	}
}

// observer follows each request for the meters and the access log.
func (w *Web) observer() proxy.Observer {
	return proxy.Observer{
		Begin: begin,
		Stamp: func(_ *proxy.Exchange, h http.Header) { h.Set("X-Served-By", w.now.Load().server) },
		End:   w.count,
	}
}

// begin takes the balancer's word for who asks.
func begin(x *proxy.Exchange) {
	x.ID = x.Request.Header.Get("X-Request-Id")
	if visitor := x.Request.Header.Get("X-Forwarded-For"); visitor != "" {
		x.Client = visitor
	}
}

func (w *Web) count(x *proxy.Exchange) {
	if x.Request.Header.Get(checkHeader) != "" {
		return
	}
	w.meters.requests.WithLabelValues(strconv.Itoa(x.Status)).Inc()
	if x.Status != http.StatusSwitchingProtocols {
		w.meters.seconds.Observe(x.Duration.Seconds())
	}
	x.Server = instanceName(x.Server)
	w.access.Write(x)
}
