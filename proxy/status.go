package proxy

import (
	"context"
	"errors"

	"trivet/proxy/upstream"
	"trivet/proxy/wire"
)

// Why a request was not answered by a target, beside the errors of package
// upstream. Forwarder.Fail gets one of these, or a connection's error.
var (
	ErrClientGone = errors.New("client went away")                       // 499, nobody reads it
	ErrClientBody = errors.New("client's request body is broken")        // 400
	ErrClientSlow = errors.New("client's request body came too slowly")  // 408
	ErrTooLarge   = errors.New("client's request body is too large")     // 413
	ErrUpgrade    = errors.New("target switched to an unasked protocol") // 502
	ErrAnswer     = errors.New("target's answer broke off")              // 502
)

// StatusClientGone is what is counted and logged when the client did not wait
// for its answer; it is never sent. nginx made it customary.
const StatusClientGone = 499

// StatusOf is the status by which a failure to forward is answered.
func StatusOf(err error) int {
	switch {
	case errors.Is(err, ErrClientGone):
		return StatusClientGone
	case errors.Is(err, ErrTooLarge):
		return 413
	case errors.Is(err, ErrClientSlow):
		return 408
	case errors.Is(err, ErrClientBody):
		return statusOfBody(err)
	case errors.Is(err, upstream.ErrHeadTimeout), errors.Is(err, context.DeadlineExceeded):
		return 504
	case errors.Is(err, upstream.ErrNoTarget), errors.Is(err, upstream.ErrShed),
		errors.Is(err, upstream.ErrQueueFull), errors.Is(err, upstream.ErrQueueTime):
		return 503
	}
	return 502
}

func statusOfBody(err error) int {
	if e, ok := errors.AsType[*wire.Error](err); ok && e.Status >= 400 {
		return e.Status
	}
	return 400
}
