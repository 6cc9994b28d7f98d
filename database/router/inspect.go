package router

import (
	"context"

	"trivet/database/router/digest"
	"trivet/internal/part"
)

// Status is what a router says of itself, with what it has counted of the
// app's statements.
type Status struct {
	part.RouterStatus
	Queries digest.Report `json:"queries"`
}

// Inspect says what the router does now.
func (r *Router) Inspect(context.Context) (any, error) {
	a, _ := r.writes.now()
	reads, _ := r.reads.now()
	return Status{part.RouterStatus{
		Writer: a.server, Epoch: a.epoch, Held: a.held, Open: r.transactions(), Reads: reads.server,
		Clients: r.sessions.count(), Waiting: r.waiting(), Pooled: r.writes.kept() + r.reads.kept(), Tunnels: r.tunnelled.Load(),
		Moved: r.meters.moved.Load(), Cut: r.meters.cut.Load(), RolledBack: r.meters.rolledBack.Load(),
		Refused: r.meters.refused.Load(), Statements: r.meters.statements.Load(),
	}, r.digests.Report()}, nil
}

// transactions is how many connections hold this server's mariadbd for writes:
// while a switch is made ready those are the open transactions, of this
// server's sessions and of those that come through the tunnel.
func (r *Router) transactions() int64 {
	a, _ := r.writes.now()
	if len(a.places) == 0 || !a.places[0].local {
		return 0
	}
	return r.writers.Load() + int64(r.writes.used())
}
