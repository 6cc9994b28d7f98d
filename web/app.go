package web

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"trivet/internal/part"
	"trivet/proxy"
	"trivet/proxy/edge"
	"trivet/proxy/upstream"
	"trivet/proxy/wire"
)

// checkHeader marks a balancer's health check; its value is how many
// milliseconds the balancer waits. Balancers take it out of visitors' requests.
const checkHeader = "X-Trivet-Check"

// targets returns one target for each instance, the present one where it is
// still the same.
func targets(present []*upstream.Target, instances []part.Instance) []*upstream.Target {
	known := make(map[string]*upstream.Target, len(present))
	for _, t := range present {
		known[t.Name()+t.Address()] = t
	}
	next := make([]*upstream.Target, 0, len(instances))
	for _, i := range instances {
		t := known[i.Name+i.Address]
		if t == nil {
			t = upstream.NewTarget(upstream.TargetConfig{
				Name:        i.Name,
				Address:     i.Address,
				Dial:        upstream.Dialer(i.Network, i.Address),
				IdleTimeout: appIdle,
				State:       upstream.Up,
			})
		}
		next = append(next, t)
	}
	return next
}

// keep is what the app sees of a request: all but what balancers say to web
// servers, and the span, which is this server's own.
func keep(f *wire.Field) bool {
	return f.Kind != wire.Trivet && f.Kind != wire.Underscore && f.Kind != wire.Traceparent
}

// keepOfVisitor is what the app sees of a visitor's own request: nothing in it
// either that says where it came from.
func keepOfVisitor(f *wire.Field) bool { return edge.Keep(f) && keep(f) }

// fail answers a request that no instance answered.
func (w *Web) fail(x *proxy.Exchange, status int, err error) {
	w.log.Debug("request not answered by the app", "id", string(x.ID), "status", status, "err", err)
	if status == 503 {
		answerText(x, status, reason(status), wire.Field{Name: retryAfter, Value: []byte("1"), Kind: wire.RetryAfter})
		return
	}
	answerText(x, status, reason(status))
}

func reason(status int) string {
	switch status {
	case 400:
		return "The request's body is broken."
	case 408:
		return "The request's body came too slowly."
	case 413:
		return "The request's body is too large."
	case 503:
		return "No instance of the app is ready. Please try again in a moment."
	case 504:
		return "The app did not answer in time."
	}
	return "The app's answer broke off."
}

// answerCheck answers a balancer's check: by the app's own health path if the
// site has an app. It answers even if the app does not, before the balancer
// gives up waiting: this server is then unwell, but not dead.
func (w *Web) answerCheck(x *proxy.Exchange, v *view, value []byte) {
	if !v.hasApp {
		answerText(x, 200, "ok")
		return
	}
	wait, err := strconv.Atoi(string(value))
	if err != nil || wait <= 0 || wait > 60_000 {
		answerText(x, 400, checkHeader+" is not a number of milliseconds")
		return
	}
	limit := time.Duration(wait) * time.Millisecond * 7 / 10
	ctx, cancel := context.WithTimeout(x.Context(), limit)
	defer cancel()
	status, line := w.askApp(ctx, v)
	answerText(x, status, line)
}

// askApp asks the instances for their health, each time another one first,
// until one is well.
func (w *Web) askApp(ctx context.Context, v *view) (status int, line string) {
	all := w.pool.Targets()
	status, line = 503, reason(503)
	first := int(w.checks.Add(1))
	for i := range all {
		t := all[(first+i)%len(all)]
		code, said, err := t.Probe(ctx, v.site.Domain, v.site.App.Health.Path, nil)
		switch {
		case err == nil && code >= 200 && code <= 299:
			return 200, said
		case err == nil:
			status, line = code, said
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return 504, reason(504)
		}
	}
	return status, strings.TrimSpace(line)
}
