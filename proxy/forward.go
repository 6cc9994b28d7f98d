package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"trivet/proxy/upstream"
	"trivet/proxy/wire"
)

// Forwarder hands requests to the targets of a pool, and their answers back.
type Forwarder struct {
	Pool *upstream.Pool
	// Keep says whether a client's field is forwarded; nil: all are, but those
	// that end at this hop.
	Keep func(*wire.Field) bool
	// Fail answers a request that no target answered; nil: with an empty body.
	// It is not called for a client that has gone.
	Fail func(x *Exchange, status int, err error)
}

const mostTries = 8 // of one request whose targets were ejected under it

// Forward forwards one request; when it returns, the exchange is over.
func (f *Forwarder) Forward(x *Exchange) {
	j := journeys.Get().(*journey)
	j.begin(f, x)
	defer j.end()
	if x.limit > 0 && x.Request.Length > x.limit {
		j.fail(ErrTooLarge)
		return
	}
	if err := j.enter(); err != nil {
		j.fail(err)
		return
	}
	j.run()
}

// journey is one request on its way through a pool.
type journey struct {
	forwarder *Forwarder
	exchange  *Exchange
	settings  *upstream.Settings
	safe      bool
	pass      upstream.Pass
	entered   bool
	choice    upstream.Choice
	limit     time.Time // of waiting for a target; zero: has not waited
	count     int       // tries in all
	again     int       // times that it was sent again
	renewed   bool      // whether a target may get it a second time
	err       error     // of the last try
	clock     int64     // when the last step of a try ended
	kept      *held     // 502, 503 or 504 that counts if nothing better comes
	context   func() context.Context

	conn     *upstream.Conn
	outgoing outgoing
	incoming incoming
}

var journeys = sync.Pool{New: func() any {
	j := new(journey)
	j.context = func() context.Context { return j.exchange.Context() }
	j.outgoing.journey, j.incoming.journey = j, j
	return j
}}

func (j *journey) begin(f *Forwarder, x *Exchange) {
	j.forwarder, j.exchange, j.settings = f, x, f.Pool.Settings()
	j.safe = safe(x.Request)
	j.choice = upstream.Choice{Key: x.Key, HasKey: x.HasKey, Sticky: x.Sticky}
	j.limit, j.count, j.again, j.renewed, j.err = time.Time{}, 0, 0, false, nil
	j.outgoing.begin()
}

// end gives everything back.
func (j *journey) end() {
	j.leave(upstream.Cancelled)
	j.outgoing.end()
	j.incoming.give()
	j.dropKept()
	j.forwarder, j.exchange, j.settings = nil, nil, nil
	j.choice = upstream.Choice{}
	journeys.Put(j)
}

// safe says whether r may be sent twice: its method changes nothing (RFC 9110,
// 9.2.1), it carries no body and asks for no tunnel.
func safe(r *wire.Request) bool {
	if r.Length != 0 || len(r.Upgrade) > 0 || len(r.Protocol) > 0 {
		return false
	}
	switch string(r.Method) {
	case "GET", "HEAD", "OPTIONS":
		return true
	}
	return false
}

// enter waits to be let into the pool.
func (j *journey) enter() error {
	pass, err := j.forwarder.Pool.Enter(j.context)
	if err != nil {
		return err
	}
	j.pass, j.entered = pass, true
	if pass.Waited() {
		j.exchange.Times.Queue = time.Since(j.exchange.Begin)
	}
	return nil
}

// leave lets another request into the pool.
func (j *journey) leave(o upstream.Outcome) {
	if j.entered {
		j.entered = false
		j.forwarder.Pool.Leave(j.pass, o)
	}
}

// run tries targets until the request is answered or nothing is left to try.
func (j *journey) run() {
	x := j.exchange
	if err := j.outgoing.prepare(); err != nil {
		j.fail(err)
		return
	}
	for {
		target := j.next()
		if target == nil {
			if j.wait() {
				continue
			}
			j.giveUp()
			return
		}
		x.Target, x.Retries = target.Name(), j.count-1
		f := j.try(target)
		if f == nil || j.settled(f) {
			return
		}
	}
}

// next chooses a target, or returns nil.
func (j *journey) next() *upstream.Target {
	if j.choice.NTried == len(j.choice.Tried) {
		return nil // who else could be chosen is not known any more
	}
	pool := j.forwarder.Pool
	j.choice.Now = 0
	target := pool.Choose(&j.choice)
	if target == nil && j.renewed {
		// All were tried. A kept connection that broke says little of the target.
		j.choice.NTried = 0
		target = pool.Choose(&j.choice)
	}
	if target != nil {
		j.choice.Try(target)
		j.count++
	}
	return target
}

// wait waits for a target to become usable. It is false when there is an
// answer to give already, or patience has ended.
func (j *journey) wait() bool {
	if j.kept != nil || j.settings.Patience == 0 {
		return false
	}
	began := time.Now()
	if j.limit.IsZero() {
		j.limit = began.Add(j.settings.Patience)
	}
	err := j.forwarder.Pool.Wait(j.exchange.Context(), j.limit)
	j.exchange.Times.Queue += time.Since(began)
	if err != nil {
		if !errors.Is(err, upstream.ErrNoTarget) {
			j.err = err
		}
		return false
	}
	j.settings = j.forwarder.Pool.Settings()
	j.choice.NTried = 0
	return time.Now().Before(j.limit)
}

// failure is why a try gave no answer.
type failure struct {
	err    error
	sent   bool // the target may have seen the request
	broken bool // the connection was there and broke
	final  bool // trying again is of no use
}

// settled says whether the failure of a try is the request's end. If so, the client has been told.
func (j *journey) settled(f *failure) bool {
	j.err = f.err
	if !f.final && j.more(f) {
		return false
	}
	j.renewed = false
	if j.kept != nil && !f.final {
		return false // on to a target that is left, or to the kept answer
	}
	j.fail(f.err)
	return true
}

// more says whether the request may be tried again after f.
func (j *journey) more(f *failure) bool {
	switch {
	case !f.sent && !j.outgoing.touched:
		j.renewed = false
		return true
	case !j.safe:
		return false
	case errors.Is(f.err, upstream.ErrEjected) && j.count < mostTries:
		// The pool took it back itself: that is not counted as a retry.
		j.renewed = false
		return true
	case j.again < j.settings.Retries && j.forwarder.Pool.TakeRetry():
		j.again++
		j.renewed = f.broken
		return true
	}
	return false
}

// giveUp answers when no target is left.
func (j *journey) giveUp() {
	if j.kept != nil {
		j.sendKept()
		return
	}
	if errors.Is(j.err, ErrClientGone) {
		j.fail(j.err)
		return
	}
	j.fail(errors.Join(upstream.ErrNoTarget, j.err))
}

// fail answers a request that no target answered.
func (j *journey) fail(err error) {
	x := j.exchange
	j.leave(outcomeOf(err))
	if x.watch.left() {
		err = errors.Join(ErrClientGone, err)
	}
	x.Err = err
	status := StatusOf(err)
	switch {
	case status == StatusClientGone:
		x.Status = status
		x.Stream.Abort()
	case j.forwarder.Fail != nil:
		j.forwarder.Fail(x, status, err)
	}
	if !x.started && status != StatusClientGone {
		x.Answer(status, nil, nil)
	}
}

// outcomeOf is what err says of the pool's targets.
func outcomeOf(err error) upstream.Outcome {
	switch {
	case errors.Is(err, upstream.ErrHeadTimeout):
		return upstream.Late
	case errors.Is(err, upstream.ErrEjected):
		return upstream.Cancelled
	case StatusOf(err) == 502:
		return upstream.Broken
	}
	return upstream.Cancelled
}
