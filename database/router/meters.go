package router

import (
	"sync/atomic"

	"trivet/internal/metric"
)

// meters count since the start.
type meters struct {
	opened, refused, moved, cut, rolledBack, statements count
}

type count struct{ atomic.Uint64 }

// Inc counts one.
func (c *count) Inc() { c.Add(1) }

// register has what r counts and holds measured.
func (r *Router) register(m *metric.Registry) {
	gauge := func(name, help string, f func() int64) {
		m.GaugeFunc(name, help, func() float64 { return float64(f()) })
	}
	gauge("trivet_router_connections", "Database connections of the app that are open now.", func() int64 { return int64(r.sessions.count()) })
	gauge("trivet_router_waiting", "Connections that wait for a place, or for a server that takes their statements.", r.waiting)
	gauge("trivet_router_pooled", "Connections to the database that are kept for the next client.", func() int64 { return int64(r.writes.kept() + r.reads.kept()) })
	gauge("trivet_router_tunnels", "Connections of the other servers' routers.", r.tunnelled.Load)
	counter := func(name, help string, c *count) {
		m.CounterFunc(name, help, func() float64 { return float64(c.Load()) })
	}
	counter("trivet_router_connections_total", "Database connections of the app that were opened.", &r.meters.opened)
	counter("trivet_router_refused_total", "Answers to the app that were errors of the router's own.", &r.meters.refused)
	counter("trivet_router_moved_total", "Sessions that went on with another connection to the database, their client none the wiser.", &r.meters.moved)
	counter("trivet_router_cut_total", "Sessions whose client was told that its connection was lost, or lost it.", &r.meters.cut)
	counter("trivet_router_rolled_back_total", "Transactions that were rolled back because the database went to another server.", &r.meters.rolledBack)
	counter("trivet_router_statements_total", "Statements of the app.", &r.meters.statements)
}

// waiting is how many clients wait for a place or for an upstream.
func (r *Router) waiting() int64 { return int64(r.gate.queue()) + r.held.Load() }
