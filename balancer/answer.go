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
	b.meters.visits.Enter()
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
	if v.sticky.name != "" {
		x.Sticky, x.Stamp = v.sticky.asked(x.Request.Fields), giveCookie
	}
	b.web.Forward(x)
}

// fail answers a request that no web server answered.
func (b *Balancer) fail(x *proxy.Exchange, status int, err error) {
	b.log.Debug("request not answered", "id", string(x.ID), "status", status, "backend", x.Target, "err", err)
	edge.Page(x, status)
}
