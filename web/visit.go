package web

import (
	"net/netip"
	"slices"

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
	w.answer(x, v, w.app)
}

// fromVisitor answers a request whose TLS was passed through to here.
func (w *Web) fromVisitor(x *proxy.Exchange) {
	v := w.now.Load()
	x.Local = v
	w.meters.visits.Enter()
	x.Out = append(x.Out, wire.Field{Name: servedBy, Value: v.server})
	if !v.rules.Admit(x) {
		return
	}
	x.Up = slices.DeleteFunc(x.Up, func(f wire.Field) bool { return f.Kind == wire.Trivet }) // for web servers, not the app
	w.answer(x, v, w.edge)
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
