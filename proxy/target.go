package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// State says how far a target can be used. A higher one is always preferred.
type State int32

// The states of a target.
const (
	Down     State = iota // it does not answer: never used
	Untested              // not checked yet: used if none is better
	Unwell                // it answers, but says that it is not well: used if none is better
	Up                    // in service
)

// String names s for logs and reasons.
func (s State) String() string {
	return [...]string{"down", "untested", "unwell", "up"}[s]
}

// rank orders states for choosing: Untested and Unwell are alike.
func (s State) rank() int {
	switch s {
	case Up:
		return 2
	case Untested, Unwell:
		return 1
	}
	return 0
}

// TargetConfig is what a target is made of.
type TargetConfig struct {
	// Name is for logs, metrics and messages.
	Name string
	// Dial connects to it.
	Dial func(context.Context) (net.Conn, error)
	// TLS of each connection; nil: plain.
	TLS *tls.Config
	// IdleTimeout is how long an unused connection is kept. It must be shorter
	// than the target's own, else a request may meet a closing connection.
	IdleTimeout time.Duration
	// State to begin with.
	State State
}

// Target is one place that requests can be sent to, with its own kept
// connections. It is safe for concurrent use.
type Target struct {
	name      string
	scheme    string
	transport *http.Transport
	inFlight  atomic.Int64
	skipUntil atomic.Int64 // Unix nanoseconds

	mu      sync.Mutex
	state   State
	waiting map[*attempt]struct{} // whose answer's head has not come
}

// idlePerTarget bounds the kept connections to one target.
const idlePerTarget = 256

// handshakeTimeout bounds TLS with a target that accepted the connection.
const handshakeTimeout = time.Second

// NewTarget returns a target; it connects when the first request comes.
func NewTarget(c TargetConfig) *Target {
	t := &Target{name: c.Name, scheme: "http", state: c.State, waiting: map[*attempt]struct{}{}}
	if c.TLS != nil {
		t.scheme = "https"
	}
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	t.transport = &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx) },
		TLSClientConfig:        c.TLS,
		TLSHandshakeTimeout:    handshakeTimeout,
		Protocols:              http1,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    idlePerTarget,
		IdleConnTimeout:        c.IdleTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
	}
	return t
}

// Name is what the target was called in its TargetConfig.
func (t *Target) Name() string { return t.name }

// InFlight is the number of requests and tunnels that are with the target now.
func (t *Target) InFlight() int64 { return t.inFlight.Load() }

// State is the target's state now.
func (t *Target) State() State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// SetState changes the state and returns the former one. A target that goes
// Down is ejected: requests that wait for its answer's head are taken back at
// once, and its kept connections are closed.
func (t *Target) SetState(s State) State {
	t.mu.Lock()
	former := t.state
	t.state = s
	if s == Down {
		for a := range t.waiting {
			a.cancel(ErrEjected)
		}
	}
	t.mu.Unlock()
	if s == Down {
		t.transport.CloseIdleConnections()
	}
	return former
}

// Skip takes the target out of the choice for d.
func (t *Target) Skip(d time.Duration) {
	t.skipUntil.Store(time.Now().Add(d).UnixNano())
	t.transport.CloseIdleConnections()
}

// Retire closes the kept connections of a target that gets no more requests;
// those that are with it end in their own time.
func (t *Target) Retire() { t.transport.CloseIdleConnections() }

// Probe sends r past the pool, whatever the target's state, as a check does.
// The path and query of r's URL count, its scheme and host do not.
func (t *Target) Probe(r *http.Request) (*http.Response, error) {
	t.address(r)
	return t.transport.RoundTrip(r)
}

// address points r at the target; what the visitor sees stays in r.Host.
func (t *Target) address(r *http.Request) {
	r.URL.Scheme, r.URL.Host = t.scheme, t.name
}

// usable returns the rank of the target now; 0 means not at all.
func (t *Target) usable(now int64) int {
	if t.skipUntil.Load() > now {
		return 0
	}
	return t.State().rank()
}

// enter registers a, so that an ejection can take it back.
func (t *Target) enter(a *attempt) {
	t.inFlight.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting[a] = struct{}{}
	if t.state == Down {
		a.cancel(ErrEjected)
	}
}

// headCame ends the time in which a can be taken back.
func (t *Target) headCame(a *attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiting, a)
}
