package web

import (
	"net/netip"

	"trivet/proxy"
	"trivet/proxy/edge"
	"trivet/proxy/wire"
)

var servedBy = []byte("X-Served-By")

// isCheck marks an exchange that is a balancer's check.
var isCheck any = "check"

// fromBalancer answers a request that a balancer of the site sent, whose word
// for who asks, and for the request's ID and trace, is taken.
func (w *Web) fromBalancer(x *proxy.Exchange) {
	v := w.now.Load()
	x.Out = append(x.Out, wire.Field{Name: servedBy, Value: v.server})
	if check := wire.Get(x.Request.Fields, checkHeader); check != nil {
		x.Local = isCheck
		w.answerCheck(x, v, check)
		return
	}
	x.Client = visitor(x)
	edge.Follow(x)
	w.answer(x, v)
}

// fromVisitor answers a request whose TLS was passed through to here.
func (w *Web) fromVisitor(x *proxy.Exchange) {
	v := w.now.Load()
	x.Out = append(x.Out, wire.Field{Name: servedBy, Value: v.server})
	if v.rules.Admit(x) {
		w.answer(x, v)
	}
}

// visitor is who the balancer says asks.
func visitor(x *proxy.Exchange) netip.Addr {
	said := wire.Get(x.Request.Fields, string(edge.Client))
	if said == nil {
		said = wire.Find(x.Request.Fields, wire.XForwardedFor)
	}
	if a, err := netip.ParseAddr(string(said)); err == nil {
		return a
	}
	return x.Client
}
