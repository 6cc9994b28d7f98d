package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A request that waits longer than lateAfter for its answer's head makes its
// target suspect, again each lateEvery: so a frozen server is noticed by the
// requests that hang on it, not by the next regular check.
const (
	lateAfter = 150 * time.Millisecond
	lateEvery = 500 * time.Millisecond
)

// attempt is one sending of a request to one target.
type attempt struct {
	target *Target
	cancel context.CancelCauseFunc // ends this sending and its answer's body
	cause  func() error            // why it was cancelled
	sent   atomic.Bool             // a connection was there: something may have been written

	mu    sync.Mutex
	done  bool // the head came or the attempt failed
	late  *time.Timer
	limit *time.Timer
	over  sync.Once
}

// failure is why an attempt gave no answer.
type failure struct {
	err    error
	sent   bool // the target may have seen the request
	broken bool // the connection was there and broke
	final  bool // trying again is of no use: client gone, out of time
}

// try sends t's request once.
func (g *Target) try(t *tries) (*http.Response, *failure) {
	ctx, cancel := context.WithCancelCause(t.request.Context())
	a := &attempt{target: g, cancel: cancel, cause: func() error { return context.Cause(ctx) }}
	a.watch(t.pool)
	g.enter(a)
	resp, err := g.transport.RoundTrip(a.outgoing(ctx, t))
	if err == nil {
		err = a.hold(t, resp)
	}
	a.headDone()
	if err == nil {
		err = a.takenBack(resp)
	}
	if err != nil {
		return nil, a.failed(t, err)
	}
	return resp, nil
}

// watch begins the wait after which the target is suspect.
func (a *attempt) watch(p *Pool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.late = time.AfterFunc(lateAfter, func() { a.isLate(p) })
}

// takenBack closes an answer whose head came just when it was taken back.
func (a *attempt) takenBack(resp *http.Response) error {
	cause := a.cause()
	if !errors.Is(cause, ErrEjected) && !errors.Is(cause, ErrHeadTimeout) {
		return nil
	}
	_ = resp.Body.Close()
	return cause
}

// isLate tells the pool of the wait and looks again later.
func (a *attempt) isLate(p *Pool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.done {
		p.suspect(a.target)
		a.late.Reset(lateEvery)
	}
}

// outgoing is the request as it goes to this target.
func (a *attempt) outgoing(ctx context.Context, t *tries) *http.Request {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { a.sent.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { a.startLimit(t.settings.Timeout) },
	})
	r := t.request.Clone(ctx)
	if t.body != nil {
		r.Body = t.body
	}
	a.target.address(r)
	return r
}

// startLimit begins the wait for the head.
func (a *attempt) startLimit(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d > 0 && !a.done && a.limit == nil {
		a.limit = time.AfterFunc(d, func() { a.cancel(ErrHeadTimeout) })
	}
}

// headDone ends the waiting, with or without an answer.
func (a *attempt) headDone() {
	a.target.headCame(a)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = true
	a.late.Stop()
	if a.limit != nil {
		a.limit.Stop()
	}
}

// end gives the target back.
func (a *attempt) end() {
	a.over.Do(func() {
		a.target.inFlight.Add(-1)
		a.cancel(nil)
	})
}

// failed sorts out err, tells of the target what it deserves, and ends the attempt.
func (a *attempt) failed(t *tries, err error) *failure {
	defer a.end()
	cause := a.cause()
	f := &failure{err: err, sent: a.sent.Load()}
	switch {
	case t.request.Context().Err() != nil:
		f.err, f.final = errors.Join(ErrClientGone, err), true
	case t.body != nil && t.body.failed.Load():
		f.err, f.final = errors.Join(ErrClientBody, err), true
	case errors.Is(cause, ErrHeadTimeout):
		f.err, f.final = ErrHeadTimeout, true
	case errors.Is(cause, ErrEjected):
		f.err = ErrEjected
	default:
		f.broken = f.sent
		t.pool.blame(a.target, f.sent, t.settings)
	}
	return f
}

// blame is what follows from a failure that was the target's own.
func (p *Pool) blame(g *Target, sent bool, s *Settings) {
	if !sent && s.SkipRefused > 0 {
		g.Skip(s.SkipRefused)
	}
	p.suspect(g)
}

// followed is a request's body of which one knows whether it was touched. Its
// Close does nothing: the server closes its request's body, and a transport
// that could not connect must not.
type followed struct {
	body    io.Reader
	touched atomic.Bool
	failed  atomic.Bool
}

func follow(body io.ReadCloser) *followed {
	if body == nil || body == http.NoBody {
		return nil
	}
	return &followed{body: body}
}

func (f *followed) Read(p []byte) (int, error) {
	f.touched.Store(true)
	n, err := f.body.Read(p)
	if err != nil && err != io.EOF {
		f.failed.Store(true)
	}
	return n, err
}

func (f *followed) Close() error { return nil }

func equalFold(a, b string) bool { return strings.EqualFold(strings.TrimSpace(a), b) }
