package proxy

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// Settings are what a pool works by; they can change at any time.
type Settings struct {
	Targets []*Target
	// Retries bounds how often a safe request that was sent is sent again.
	Retries int
	// RetryStatus tries a safe request elsewhere when the answer is 502, 503 or 504.
	RetryStatus bool
	// Timeout is the longest wait for an answer's head once the request is
	// written; zero: none.
	Timeout time.Duration
	// SkipRefused takes a target that cannot be connected to out of the choice
	// for that long; zero: not at all.
	SkipRefused time.Duration
	// Patience is how long a request that may still be sent waits for a target
	// when none can be chosen, rather than fail; zero: not at all.
	Patience time.Duration
}

const (
	mostTries    = 8                     // of one request whose targets were ejected under it
	waitersLimit = 2048                  // requests that wait for a target in one pool; one more fails at once
	waitStep     = 20 * time.Millisecond // between two looks for a target
)

// Pool spreads requests over targets: the one with the fewest in flight among
// the best, at random among equals. It is an http.RoundTripper, safe for
// concurrent use.
type Pool struct {
	settings atomic.Pointer[Settings]
	suspect  func(*Target)
	waiters  atomic.Int64
}

// NewPool returns an empty pool. It calls suspect, which must not block, when
// a target could not be connected to, broke a connection, or lets a request
// wait; nil: nobody cares.
func NewPool(suspect func(*Target)) *Pool {
	if suspect == nil {
		suspect = func(*Target) {}
	}
	p := &Pool{suspect: suspect}
	p.settings.Store(&Settings{})
	return p
}

// Set changes what the pool works by. Requests under way are not touched;
// targets that are gone are retired.
func (p *Pool) Set(s Settings) {
	s.Targets = slices.Clone(s.Targets)
	former := p.settings.Swap(&s)
	for _, t := range former.Targets {
		if !slices.Contains(s.Targets, t) {
			t.Retire()
		}
	}
}

// Targets returns the pool's targets.
func (p *Pool) Targets() []*Target { return slices.Clone(p.settings.Load().Targets) }

// InFlight is the number of requests and tunnels that are with all targets now.
func (p *Pool) InFlight() int64 {
	var n int64
	for _, t := range p.settings.Load().Targets {
		n += t.InFlight()
	}
	return n
}

// RoundTrip sends r to a target and, where the rules of the package allow it,
// to further ones. The error is one of the package's or the last target's.
func (p *Pool) RoundTrip(r *http.Request) (*http.Response, error) {
	t := &tries{pool: p, settings: p.settings.Load(), request: r, safe: safe(r), body: follow(r.Body)}
	x := ExchangeOf(r.Context())
	for {
		target := t.next()
		if target == nil {
			if t.wait() {
				continue
			}
			return t.giveUp()
		}
		x.Server, x.Retries = target.name, t.count-1
		resp, fail := target.try(t)
		if t.settled(resp, fail) {
			return resp, t.err
		}
	}
}

// tries is one request on its way through the pool.
type tries struct {
	pool     *Pool
	settings *Settings
	request  *http.Request
	safe     bool
	body     *followed // nil: none

	tried   []*Target
	count   int            // tries in all
	limit   time.Time      // of waiting; zero: has not waited
	again   int            // times that it was sent again
	renewed bool           // whether a target may get it a second time
	kept    *http.Response // 502, 503 or 504 that counts if nothing better comes
	keptBy  string
	err     error
}

// next chooses a target, or returns nil.
func (t *tries) next() *Target {
	target := choose(t.settings.Targets, t.tried)
	if target == nil && t.renewed {
		// All were tried. A kept connection that broke says little of the target.
		target = choose(t.settings.Targets, nil)
	}
	if target != nil {
		t.tried = append(t.tried, target)
		t.count++
	}
	return target
}

// wait waits for a target to become usable. It is false when there is an
// answer to give already, when too many wait, or when patience has ended.
func (t *tries) wait() bool {
	if t.kept != nil || t.settings.Patience == 0 || t.pool.waiters.Load() >= waitersLimit {
		return false
	}
	if t.limit.IsZero() {
		t.limit = time.Now().Add(t.settings.Patience)
	}
	t.pool.waiters.Add(1)
	defer t.pool.waiters.Add(-1)
	tick := time.NewTicker(waitStep)
	defer tick.Stop()
	for time.Now().Before(t.limit) {
		select {
		case <-t.request.Context().Done():
			return false
		case <-tick.C:
		}
		if t.settings = t.pool.settings.Load(); choose(t.settings.Targets, nil) != nil {
			t.tried = nil
			return true
		}
	}
	return false
}

// settled says whether the outcome of a try is the request's answer. If so,
// t.err is what is wrong with it.
func (t *tries) settled(resp *http.Response, fail *failure) bool {
	if fail == nil {
		return t.settledAnswer(resp)
	}
	t.err = fail.err
	switch {
	case fail.final:
		t.dropKept()
		return true
	case !fail.sent && (t.body == nil || !t.body.touched.Load()):
		t.renewed = false
		return false
	case t.safe && errors.Is(fail.err, ErrEjected) && t.count < mostTries:
		// The pool took it back itself: that is not counted as a retry.
		t.renewed = false
		return false
	case t.safe && t.again < t.settings.Retries:
		t.again++
		t.renewed = fail.broken
		return false
	}
	t.renewed = false
	return t.kept == nil // else go on: to a target that is left, or to the kept answer
}

func (t *tries) settledAnswer(resp *http.Response) bool {
	t.err = nil
	elsewhere := choose(t.settings.Targets, t.tried) != nil
	if t.kept == nil && t.worthAnother(resp) && elsewhere {
		t.again++
		t.renewed = false
		t.kept, t.keptBy = resp, t.tried[len(t.tried)-1].name
		return false
	}
	t.dropKept()
	return true
}

func (t *tries) worthAnother(resp *http.Response) bool {
	if !t.settings.RetryStatus || !t.safe || t.again >= t.settings.Retries {
		return false
	}
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// giveUp is the answer when no target is left.
func (t *tries) giveUp() (*http.Response, error) {
	if t.kept != nil {
		ExchangeOf(t.request.Context()).Server = t.keptBy
		return t.kept, nil
	}
	return nil, errors.Join(ErrNoTarget, t.err)
}

func (t *tries) dropKept() {
	if t.kept != nil {
		_ = t.kept.Body.Close()
		t.kept = nil
	}
}

// choose returns the target of the highest rank with the fewest requests in
// flight, at random among equals, leaving out those in without.
func choose(targets, without []*Target) *Target {
	var best *Target
	var bestRank, ties int
	var bestLoad int64
	now := time.Now().UnixNano()
	for _, t := range targets {
		rank, load := t.usable(now), t.InFlight()
		if rank == 0 || slices.Contains(without, t) {
			continue
		}
		switch {
		case best == nil || rank > bestRank || rank == bestRank && load < bestLoad:
			best, bestRank, bestLoad, ties = t, rank, load, 1
		case rank == bestRank && load == bestLoad:
			ties++
			if rand.IntN(ties) == 0 {
				best = t
			}
		}
	}
	return best
}

// safe says whether r may be sent twice: its method changes nothing (RFC 9110,
// 9.2.1), it carries no body and asks for no tunnel.
func safe(r *http.Request) bool {
	if r.Body != nil && r.Body != http.NoBody || r.Header.Get("Upgrade") != "" {
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}
