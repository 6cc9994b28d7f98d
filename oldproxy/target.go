package proxy

import (
	"context"
	"crypto/tls"
	"errors"
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
	checks    *http.Transport // with a connection of its own: a check does not queue behind requests
	opening   chan struct{}   // one element for each connection being opened
	inFlight  atomic.Int64
	skipUntil atomic.Int64 // Unix nanoseconds

	mu      sync.Mutex
	state   State
	down    chan struct{}         // closed while the state is Down
	waiting map[*attempt]struct{} // whose answer's head has not come
}

// idlePerTarget bounds the kept connections to one target.
const idlePerTarget = 256

// handshakeTimeout bounds TLS with a target that accepted the connection.
const handshakeTimeout = time.Second

// openingLimit bounds how many connections to one target are opened at a time.
// Requests that find no kept connection then wait for whichever comes first, a
// new one or one that another request gives back. Without it a burst has each
// request pay for a handshake of its own, at the worst moment.
const openingLimit = 8

// NewTarget returns a target; it connects when the first request comes.
func NewTarget(c TargetConfig) *Target {
	t := &Target{
		name: c.Name, scheme: "http", state: c.State, waiting: map[*attempt]struct{}{},
		opening: make(chan struct{}, openingLimit), down: make(chan struct{}),
	}
	if c.State == Down {
		close(t.down)
	}
	if c.TLS != nil {
		t.scheme = "https"
	}
	t.transport = transport(c, t.limited)
	t.checks = transport(c, func(ctx context.Context, open opener) (net.Conn, error) { return open(ctx) })
	return t
}

// opener opens one connection.
type opener func(context.Context) (net.Conn, error)

// transport speaks HTTP/1.1 over connections that are opened through gate.
func transport(c TargetConfig, gate func(context.Context, opener) (net.Conn, error)) *http.Transport {
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return gate(ctx, c.Dial) },
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return gate(ctx, c.dialTLS)
		},
		Protocols:              http1,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    idlePerTarget,
		IdleConnTimeout:        c.IdleTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
	}
}

// dialTLS connects and makes the handshake.
func (c TargetConfig) dialTLS(ctx context.Context) (net.Conn, error) {
	raw, err := c.Dial(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTimeout, errHandshake)
	defer cancel()
	conn := tls.Client(raw, c.TLS)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		if context.Cause(ctx) == errHandshake {
			err = errHandshake
		}
		return nil, err
	}
	return conn, nil
}

var errHandshake = errors.New("TLS handshake did not end in time")

// limited opens a connection when there is room for it, and not at all once the target is down.
func (t *Target) limited(ctx context.Context, open opener) (net.Conn, error) {
	t.mu.Lock()
	down := t.down
	t.mu.Unlock()
	select {
	case t.opening <- struct{}{}:
		defer func() { <-t.opening }()
	case <-down:
		return nil, ErrEjected
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-down:
		return nil, ErrEjected
	default:
		return open(ctx)
	}
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
	if former == Down && s != Down {
		t.down = make(chan struct{})
	}
	if former != Down && s == Down {
		close(t.down)
	}
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
func (t *Target) Retire() {
	t.transport.CloseIdleConnections()
	t.checks.CloseIdleConnections()
}

// Probe sends r past the pool, whatever the target's state, as a check does.
// The path and query of r's URL count, its scheme and host do not.
func (t *Target) Probe(r *http.Request) (*http.Response, error) {
	t.address(r)
	return t.checks.RoundTrip(r)
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
