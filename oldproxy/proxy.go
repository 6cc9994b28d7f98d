// Package proxy is the forwarding engine that the balancer and the web server
// share: a pool of targets, the rules by which a request may be tried again,
// and the serving and draining of connections.
//
// The rules of trying again:
//   - a request that never reached a target (it could not be connected to, or
//     the handshake did not end) is tried on every other target, whatever its
//     method;
//   - a safe request without a body (GET, HEAD, OPTIONS) whose target broke,
//     or answered nonsense is tried up to Settings.Retries times more, and one
//     whose target was ejected under it is tried elsewhere without counting;
//   - a safe request that was answered 502, 503 or 504 is tried once elsewhere,
//     if Settings.RetryStatus; the later answer counts, but the first is kept
//     should there be no later one;
//   - any other request is never sent twice;
//   - where no target can be chosen, a request that may still be sent waits up
//     to Settings.Patience for one.
//
// A small answer to a safe request is read whole before its head is passed
// on, so that a target that dies in the middle of it costs the visitor nothing.
//
// The package trusts no header that says where a request came from: Rewrite
// sets those.
package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"
)

// Why a request could not be answered by a target. Fail gets one of these or a
// transport's error.
var (
	ErrNoTarget    = errors.New("no target is in service")                // 503
	ErrHeadTimeout = errors.New("target did not answer in time")          // 504
	ErrEjected     = errors.New("target was ejected before it answered")  // 502
	ErrClientGone  = errors.New("client went away")                       // 499, nobody reads it
	ErrClientBody  = errors.New("client's request body is broken")        // 400
	ErrUpgrade     = errors.New("target switched to an unasked protocol") // 502
)

// StatusClientGone is what is counted and logged when the client did not wait
// for its answer; it is never sent. nginx made it customary.
const StatusClientGone = 499

// Forwarder hands requests to a pool and its answers back, with hop-by-hop
// headers removed and WebSocket connections tunnelled. It is an http.Handler.
type Forwarder struct{ reverse *httputil.ReverseProxy }

// ForwarderConfig is what a Forwarder is made of.
type ForwarderConfig struct {
	Log  *slog.Logger
	Pool *Pool
	// Rewrite changes out, the request for the target, after hop-by-hop and
	// forwarding headers were removed from it; in is the request as it came.
	Rewrite func(in, out *http.Request)
	// Fail answers a request that no target answered.
	Fail func(w http.ResponseWriter, r *http.Request, status int, err error)
}

// NewForwarder returns a forwarder to c.Pool.
func NewForwarder(c ForwarderConfig) *Forwarder {
	return &Forwarder{&httputil.ReverseProxy{
		Transport:  c.Pool,
		BufferPool: &buffers{},
		ErrorLog:   slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.RawQuery = p.In.URL.RawQuery // the query is the app's to judge
			onlyWebSocket(p.Out.Header)
			c.Rewrite(p.In, p.Out)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			c.Fail(w, r, StatusOf(r.Context(), err), err)
		},
	}}
}

// ServeHTTP forwards one request.
func (f *Forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.reverse.ServeHTTP(w, r) }

// onlyWebSocket takes back any other upgrade: a connection that both ends
// read as another protocol would go past everything that checks requests.
func onlyWebSocket(h http.Header) {
	if up := h.Get("Upgrade"); up != "" && !equalFold(up, "websocket") {
		h.Del("Upgrade")
		h.Del("Connection")
		h.Del("Http2-Settings")
	}
}

// StatusOf is the status by which a failure to forward is answered.
func StatusOf(ctx context.Context, err error) int {
	switch {
	case errors.Is(err, ErrClientBody):
		return http.StatusBadRequest
	case errors.Is(err, ErrNoTarget):
		return http.StatusServiceUnavailable
	case errors.Is(err, ErrHeadTimeout), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case errors.Is(err, ErrClientGone), ctx.Err() != nil:
		return StatusClientGone
	}
	return http.StatusBadGateway
}

// buffers lends the 32 kB through which bodies are copied.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
