package balancer

import (
	"context"
	"errors"

	"trivet/internal/part"
	"trivet/proxy/upstream"
	"trivet/site"
)

// Inspect is a part.BalancerStatus.
func (b *Balancer) Inspect(context.Context) (any, error) {
	v := b.now.Load()
	if v == nil {
		return nil, errors.New("the balancer has no state yet")
	}
	pool := b.pool
	if v.site.Balancer.TLS == site.TLSPassthrough {
		pool = b.raw
	}
	s := pool.Status()
	status := part.BalancerStatus{
		Server: v.server, Policy: v.site.Balancer.Policy, Maintenance: v.site.Balancer.Maintenance.On,
		Connections: b.connections(), Tunnels: b.tunnels(),
		InFlight: pool.InFlight(), Queued: s.Queued, Limit: int(s.Limit), Shed: s.Shed, Retries: s.Retries,
	}
	for _, k := range v.backends {
		t := k.target
		if pool == b.raw {
			t = k.raw
		}
		status.Backends = append(status.Backends, backendStatus(k, t))
	}
	return status, nil
}

func backendStatus(k *backend, t *upstream.Target) part.BackendStatus {
	s := t.Status()
	_, why := k.health()
	if s.Why == "" {
		s.Why = why
	}
	b := part.BackendStatus{
		Name: k.name, Address: k.address, State: s.State, Why: s.Why, Since: s.Since,
		Weight: s.Weight, Effective: s.Effective, InFlight: s.InFlight, Kept: s.Kept, Latency: s.Latency,
		Requests: s.Requests, Failures: s.Failures,
	}
	if !s.Until.IsZero() {
		b.Until = &s.Until
	}
	return b
}

// connections of visitors that are open now.
func (b *Balancer) connections() int {
	run := b.servers.Load()
	if run == nil {
		return 0
	}
	return run.plain.Stats().Open + run.secure.Stats().Open + int(b.raw.InFlight())
}

// tunnels through the balancer: what is passed through is one, whatever is in it.
func (b *Balancer) tunnels() int {
	run := b.servers.Load()
	if run == nil {
		return 0
	}
	return run.secure.Stats().Tunnels + b.passing.count()
}

// ejected is how the pool calls a target that it put out by itself.
const ejected = "ejected"

// noteState follows what the pool does by itself: ejections and slow starts.
func (b *Balancer) noteState(t *upstream.Target, from, to, why string) {
	b.meters.changes.WithLabelValues(t.Name(), to).Inc()
	if to == ejected {
		b.meters.ejections.WithLabelValues(t.Name()).Inc()
	}
	b.log.Info("backend changed", "backend", t.Name(), "from", from, "to", to, "why", why)
}
