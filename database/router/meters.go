package router

import "trivet/internal/metric"

type meters struct {
	open    metric.Gauge
	opened  metric.Counter
	refused metric.Counter
}

func newMeters(r *metric.Registry) meters {
	return meters{
		open:    r.Gauge("trivet_router_connections", "Database connections of the app that are open now.").WithLabelValues(),
		opened:  r.Counter("trivet_router_connections_total", "Database connections of the app that were opened.").WithLabelValues(),
		refused: r.Counter("trivet_router_refused_total", "Database connections of the app that were answered with an error.").WithLabelValues(),
	}
}
