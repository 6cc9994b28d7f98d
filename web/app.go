package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"trivet/internal/part"
	proxy "trivet/oldproxy"
)

// checkHeader marks a balancer's health check; its value is how many
// milliseconds the balancer waits. Balancers take it out of visitors' requests.
const checkHeader = "X-Trivet-Check"

// targets returns one target for each instance, the present one where it is
// still the same.
func targets(present []*proxy.Target, instances []part.Instance) []*proxy.Target {
	known := make(map[string]*proxy.Target, len(present))
	for _, t := range present {
		known[t.Name()] = t
	}
	next := make([]*proxy.Target, 0, len(instances))
	for _, i := range instances {
		name := targetName(i)
		t := known[name]
		if t == nil {
			t = proxy.NewTarget(proxy.TargetConfig{
				Name:        name,
				Dial:        proxy.Dialer(i.Network, i.Address),
				IdleTimeout: appIdle,
				State:       proxy.Up,
			})
		}
		next = append(next, t)
	}
	return next
}

// targetName is unique by name and address: an instance that comes back
// elsewhere is another target. It serves as a URL's host and has no slash.
func targetName(i part.Instance) string {
	return i.Name + "." + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '.'
	}, strings.ToLower(i.Address))
}

// instanceName is the instance's name in its target's, "1-1".
func instanceName(target string) string {
	name, _, _ := strings.Cut(target, ".")
	return name
}

// rewrite passes on what the balancer says of the visitor.
func rewrite(in, out *http.Request) {
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v := in.Header[name]; v != nil {
			out.Header[name] = v
		}
	}
	out.Header.Del(checkHeader)
}

// fail answers a request that no instance answered.
func (w *Web) fail(rw http.ResponseWriter, _ *http.Request, status int, err error) {
	if status == http.StatusServiceUnavailable {
		rw.Header().Set("Retry-After", "1")
	}
	w.log.Debug("request not answered by the app", "status", status, "err", err)
	http.Error(rw, reason(status), status)
}

func reason(status int) string {
	switch status {
	case http.StatusServiceUnavailable:
		return "No instance of the app is ready. Please try again in a moment."
	case http.StatusGatewayTimeout:
		return "The app did not answer in time."
	case proxy.StatusClientGone:
		return "The client went away."
	case http.StatusBadRequest:
		return "The request's body is broken."
	}
	return "The app's answer broke off."
}

// answerCheck answers a balancer's check: by the app's own health path if the
// site has an app. It answers even if the app does not, before the balancer
// gives up waiting: this server is then unwell, but not dead.
func (w *Web) answerCheck(rw http.ResponseWriter, r *http.Request, v *view) {
	if !v.hasApp {
		answerWell(rw)
		return
	}
	wait, err := strconv.Atoi(r.Header.Get(checkHeader))
	if err != nil || wait <= 0 || wait > 60_000 {
		http.Error(rw, fmt.Sprintf("%s is not a number of milliseconds", checkHeader), http.StatusBadRequest)
		return
	}
	limit := time.Duration(wait) * time.Millisecond * 7 / 10
	ctx, cancel := context.WithTimeoutCause(r.Context(), limit, errors.New("the app is slow"))
	defer cancel()
	check := r.Clone(ctx)
	check.URL.Path, check.URL.RawPath, check.URL.RawQuery = v.site.App.Health.Path, "", ""
	w.app.ServeHTTP(rw, check)
}

func answerWell(rw http.ResponseWriter) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	_, _ = rw.Write([]byte("ok\n"))
}
