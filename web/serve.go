package web

import (
	"crypto/tls"
	"time"

	"trivet/proxy"
	"trivet/proxy/edge"
	"trivet/proxy/wire"
	"trivet/site"
)

// visitorStill is how long a visitor may neither send what was announced nor
// take what is sent, however low the rate that the site asks for.
const visitorStill = 30 * time.Second

// balancerTimes are those of balancers. Who is slow was seen to by them.
var balancerTimes = proxy.Times{Head: headTimeout, Idle: idleTimeout, Still: still}

// servers are those that run, so that an Apply can change their limits.
type servers struct{ balancers, visitors *proxy.Server }

func (s *servers) set(c site.Balancer) {
	s.balancers.Set(balancerLimits(c), 0, balancerTimes)
	s.visitors.Set(visitorLimits(c), c.Limits.Body, visitorTimes(c))
	s.visitors.SetConnections(c.Limits.Connections)
}

// balancerLimits leave room for what a balancer adds to what it let through.
func balancerLimits(c site.Balancer) wire.Limits {
	return wire.Limits{
		Head: c.Limits.Head + beyondHead, Field: c.Limits.Head + beyondHead,
		Target: c.Limits.Head, Count: mostFields + beyondCount,
	}
}

// visitorLimits are what a balancer would allow a visitor, and so visitorTimes.
func visitorLimits(c site.Balancer) wire.Limits {
	return wire.Limits{Head: c.Limits.Head, Field: c.Limits.Head, Target: c.Limits.Head / 2, Count: mostFields}
}

func visitorTimes(c site.Balancer) proxy.Times {
	return proxy.Times{Head: c.Limits.HeadTime.Std(), Idle: c.Limits.Idle.Std(), Still: visitorStill, Rate: c.Limits.Rate}
}

// forBalancers is the server of balancers: what visitors may send, a balancer
// has seen to already.
func (w *Web) forBalancers(c site.Balancer, secure *tls.Config) *proxy.Server {
	return proxy.NewServer(proxy.Config{
		Log: w.log, Handler: w.fromBalancer, Name: edge.Name, Done: w.done, TLS: secure, HTTP2: true,
		Limits: balancerLimits(c), Times: balancerTimes,
		Grace: drainGrace, TunnelGrace: tunnelGrace, Linger: linger,
	})
}

// forVisitors is the server of visitors that balancers pass through: here is
// the edge, with all its limits.
func (w *Web) forVisitors(c site.Balancer, secure *tls.Config) *proxy.Server {
	return proxy.NewServer(proxy.Config{
		Log: w.log, Handler: w.fromVisitor, Name: edge.Name, Done: w.doneVisitor, TLS: secure, HTTP2: true,
		Limits: visitorLimits(c), Times: visitorTimes(c), MaxBody: c.Limits.Body,
		Connections: c.Limits.Connections,
		Handshake:   w.meters.visits.Handshake,
		Grace:       drainGrace, TunnelGrace: tunnelGrace, Linger: linger,
	})
}
