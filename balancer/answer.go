package balancer

import (
	"trivet/proxy"
	"trivet/proxy/edge"
)

// redirect answers plain HTTP.
func (b *Balancer) redirect(x *proxy.Exchange) {
	v := b.enter(x)
	v.rules.Plain(x)
}

// enter counts x in, and ties it to what is in force now.
func (b *Balancer) enter(x *proxy.Exchange) *view {
	v := b.now.Load()
	x.Local = v
	b.meters.inFlight.Inc()
	return v
}

// answer answers HTTPS.
func (b *Balancer) answer(x *proxy.Exchange) {
	v := b.enter(x)
	if !v.rules.Admit(x) {
		return
	}
	if v.key != nil {
		x.Key, x.HasKey = v.key(x)
	}
	x.Sticky = v.sticky.asked(x.Request.Fields)
	b.web.Forward(x)
}

// stamp is called when a web server's answer is about to be sent.
func (b *Balancer) stamp(x *proxy.Exchange) {
	if v, ok := x.Local.(*view); ok && v.sticky.name != "" && x.Sticky != x.Target {
		v.sticky.set(x)
	}
}

// fail answers a request that no web server answered.
func (b *Balancer) fail(x *proxy.Exchange, status int, err error) {
	b.log.Debug("request not answered", "id", string(x.ID), "status", status, "backend", x.Target, "err", err)
	edge.Page(x, status)
}
