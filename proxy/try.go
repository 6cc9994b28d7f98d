package proxy

import (
	"errors"
	"io"
	"time"

	"trivet/proxy/upstream"
)

// try sends the request to target once, and passes the answer on. nil: the
// exchange is over, well or not.
func (j *journey) try(target *upstream.Target) *failure {
	if err := j.connect(target); err != nil {
		return j.refused(err)
	}
	j.conn.Begin()
	j.exchange.watch.use(j.conn)
	wrote, err := j.outgoing.send()
	if err == nil {
		j.await()
		err = j.incoming.receive()
	}
	if err != nil {
		return j.broke(err, wrote)
	}
	if j.worthAnother() {
		j.keepAnswer()
		return &retryElsewhere
	}
	j.passOn()
	return nil
}

// retryElsewhere stands for a kept answer: it is no failure of the connection.
var retryElsewhere = failure{err: errUnwell, sent: true}

var errUnwell = errors.New("target answered that it cannot")

// connect takes a connection or opens one.
func (j *journey) connect(target *upstream.Target) (err error) {
	now := upstream.Now()
	j.exchange.Times.Connect = 0
	if j.conn = target.Take(now, !j.safe); j.conn == nil {
		j.conn, err = target.Dial(j.exchange.Context())
		began := now
		now = upstream.Now()
		j.exchange.Times.Connect = time.Duration(now - began)
	}
	j.clock = now
	return err
}

// refused is what follows from a connection that could not be had.
func (j *journey) refused(err error) *failure {
	return &failure{err: err, final: j.exchange.watch.left()}
}

// await tells that the request is on its way. If its body is still being sent,
// the wait begins when that is done.
func (j *journey) await() {
	now := upstream.Now()
	j.exchange.Times.Send = time.Duration(now - j.clock)
	j.clock = now
	if !j.outgoing.feeding {
		j.conn.Await(now)
	}
}

// broke sorts out why the connection gave no answer, and ends it.
func (j *journey) broke(err error, sent bool) *failure {
	f := &failure{err: err, sent: sent}
	o := upstream.Cancelled
	cause := j.conn.Cause()
	switch {
	case errors.Is(cause, ErrClientGone):
		f.err, f.final = errors.Join(ErrClientGone, err), true
	case errors.Is(cause, upstream.ErrHeadTimeout):
		f.err, f.final, o = upstream.ErrHeadTimeout, true, upstream.Late
	case errors.Is(cause, upstream.ErrEjected):
		f.err = upstream.ErrEjected
	case cause != nil:
		f.err, f.final = cause, true // the client's body
	default:
		f.broken, o = true, upstream.Broken
	}
	if !j.outgoing.feeding {
		j.release(o, false)
		return f
	}
	// The client is told before its body is waited for: that may take long.
	j.conn.Interrupt(errAnswered)
	f.final = true
	j.fail(f.err)
	j.outgoing.join()
	j.release(o, false)
	return nil
}

// release gives the connection back.
func (j *journey) release(o upstream.Outcome, keep bool) {
	j.exchange.watch.use(nil)
	j.conn.Done(o, keep)
	j.conn = nil
}

// worthAnother says whether another target is to be asked instead.
func (j *journey) worthAnother() bool {
	in := &j.incoming
	if !j.settings.RetryStatus || !j.safe || j.kept != nil || j.again >= j.settings.Retries || !in.bad() || !in.whole() {
		return false
	}
	j.choice.Now = 0
	return j.forwarder.Pool.Choose(&j.choice) != nil && j.forwarder.Pool.TakeRetry()
}

// held is an answer that was read whole and may yet be used.
type held struct {
	incoming incoming
	target   string
}

// keepAnswer puts the answer by.
func (j *journey) keepAnswer() {
	j.again++
	in := &j.incoming
	keep := in.reusable()
	j.kept = &held{incoming: *in, target: j.exchange.Target}
	*in = incoming{journey: j}
	j.release(upstream.Bad, keep)
}

func (j *journey) dropKept() {
	if j.kept != nil {
		j.kept.incoming.give()
		j.kept = nil
	}
}

// sendKept answers with what was put by.
func (j *journey) sendKept() {
	j.exchange.Target = j.kept.target
	j.leave(upstream.Bad)
	j.kept.incoming.sendWhole()
}

// passOn passes the answer on, as far as it has come and then as it comes.
func (j *journey) passOn() {
	in := &j.incoming
	o := upstream.OK
	if in.bad() {
		o = upstream.Bad
	}
	j.dropKept()
	j.leave(o)
	switch {
	case in.response.Status == 101:
		j.switchProtocols()
		return
	case in.whole():
		j.releaseEarly(o)
		in.sendWhole()
	default:
		if in.relay() != nil {
			o = in.blame()
		}
	}
	j.outgoing.join()
	if j.conn != nil {
		j.release(o, in.reusable() && j.outgoing.complete())
	}
}

// releaseEarly gives the connection to another request while the client is
// still being written to.
func (j *journey) releaseEarly(o upstream.Outcome) {
	if !j.outgoing.feeding {
		j.release(o, j.incoming.reusable())
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
