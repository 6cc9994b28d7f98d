package balancer

import (
	"context"
	"net"
	"strconv"
	"sync"
	"time"

	"trivet/internal/mtls"
	"trivet/internal/part"
	"trivet/proxy/upstream"
)

// backend is one web server and what its checks said.
type backend struct {
	name    string // of the server
	address string
	target  *upstream.Target // by mutual TLS
	raw     *upstream.Target // for connections that are passed through: the same state, no TLS of ours
	kick    chan struct{}    // capacity 1: look at once

	tunnels *time.Timer // ends those that are left when the server was drained; nil: it is not. Apply's own

	mu  sync.Mutex
	why string // of the state, if it is not up
}

// backends returns one backend for each member, the present one where it is
// still the same.
func (b *Balancer) backends(s part.State) []*backend {
	var present []*backend
	if v := b.now.Load(); v != nil {
		present = v.backends
	}
	weights := map[string]int{}
	for _, server := range s.Site.Servers {
		weights[server.Name] = server.Weight
	}
	next := make([]*backend, 0, len(s.Members))
	for _, m := range s.Members {
		k := b.backend(present, m.Name, m.Address)
		for _, t := range []*upstream.Target{k.target, k.raw} {
			t.SetWeight(weights[m.Name])
			t.Drain(m.Drained)
		}
		b.drainTunnels(k, m.Drained, s.Site.Balancer.Drain.Std())
		next = append(next, k)
	}
	return next
}

func (b *Balancer) backend(present []*backend, name, address string) *backend {
	for _, k := range present {
		if k.name == name && k.address == address {
			return k
		}
	}
	b.meters.up.WithLabelValues(name).Set(0)
	config := upstream.TargetConfig{
		Name: name, Address: address, Dial: dialWeb(address), IdleTimeout: backendIdle, State: upstream.Untested,
	}
	k := &backend{name: name, address: address, kick: make(chan struct{}, 1), why: "not checked yet"}
	k.raw = upstream.NewTarget(config)
	config.TLS = mtls.Client(&b.identity, name, part.Web)
	k.target = upstream.NewTarget(config)
	return k
}

// drainTunnels gives the tunnels to a drained server their time.
func (b *Balancer) drainTunnels(k *backend, drained bool, left time.Duration) {
	switch {
	case drained && k.tunnels == nil:
		k.tunnels = time.AfterFunc(left, func() { b.endTunnels(k.name) })
	case !drained && k.tunnels != nil:
		k.tunnels.Stop()
		k.tunnels = nil
	}
}

// endTunnels cuts what still goes to a server.
func (b *Balancer) endTunnels(server string) {
	if run := b.servers.Load(); run != nil {
		run.secure.EndTunnels(server)
	}
	b.passing.end(server)
}

// dialWeb connects to the web server of the server at address. An address with
// a port of its own is taken as it is: tests have three servers on one.
func dialWeb(address string) func(context.Context) (net.Conn, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, strconv.Itoa(part.PortWeb))
	}
	return upstream.Dialer("tcp", address)
}

// suspect asks for an immediate check of g's backend.
func (b *Balancer) suspect(g *upstream.Target) {
	v := b.now.Load()
	if v == nil {
		return
	}
	for _, k := range v.backends {
		if k.target == g || k.raw == g {
			k.look()
		}
	}
}

func (k *backend) look() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

func (k *backend) health() (upstream.State, string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.target.State(), k.why
}

// set changes the state and returns the former one.
func (k *backend) set(s upstream.State, why string) upstream.State {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.why = why
	k.raw.SetState(s, why)
	return k.target.SetState(s, why)
}
