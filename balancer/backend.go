package balancer

import (
	"context"
	"net"
	"strconv"
	"sync"

	"trivet/internal/mtls"
	"trivet/internal/part"
	proxy "trivet/oldproxy"
)

// backend is one web server and what its checks said.
type backend struct {
	name    string // of the server
	address string
	target  *proxy.Target
	kick    chan struct{} // capacity 1: look at once

	mu  sync.Mutex
	why string // of the state, if it is not up
}

// backends returns one backend for each member, the present one where it is
// still the same.
func (b *Balancer) backends(members []part.Member) []*backend {
	var present []*backend
	if v := b.now.Load(); v != nil {
		present = v.backends
	}
	next := make([]*backend, 0, len(members))
	for _, m := range members {
		next = append(next, b.backend(present, m.Name, m.Address))
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
	return &backend{
		name: name, address: address, kick: make(chan struct{}, 1), why: "not checked yet",
		target: proxy.NewTarget(proxy.TargetConfig{
			Name:        name,
			Dial:        dialWeb(address),
			TLS:         mtls.Client(&b.identity, name, part.Web),
			IdleTimeout: backendIdle,
			State:       proxy.Untested,
		}),
	}
}

// dialWeb connects to the web server of the server at address. An address with
// a port of its own is taken as it is: tests have three servers on one.
func dialWeb(address string) func(context.Context) (net.Conn, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, strconv.Itoa(part.PortWeb))
	}
	return proxy.Dialer("tcp", address)
}

// suspect asks for an immediate check of g's backend.
func (b *Balancer) suspect(g *proxy.Target) {
	for _, k := range b.now.Load().backends {
		if k.target == g {
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

func (k *backend) health() (proxy.State, string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.target.State(), k.why
}

// set changes the state and returns the former one.
func (k *backend) set(s proxy.State, why string) proxy.State {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.why = why
	return k.target.SetState(s)
}
