// Package upstream is where requests go: targets with their kept connections,
// and the choice among them.
//
// A Pool is what the balancer has of web servers and the web server of app
// instances. One request goes like this, and none of it allocates:
//
//	pass, err := pool.Enter(ctx)         // admitted, or shed
//	target := pool.Choose(&choice)       // nil: none can be chosen now; Wait
//	conn := target.Take(now, fresh)      // nil: conn, err = target.Dial(ctx)
//	conn.Begin()                         // from here it can be interrupted
//	…write the request…
//	conn.Await(now)
//	…read the answer's head…
//	err = conn.Came(now)                 // taken back at the last moment?
//	pool.Leave(pass, upstream.OK)        // the head is there: others may come in
//	…read the answer's body…
//	conn.Done(upstream.OK, keep)
//
// Trying again is the caller's, within the pool's budget (TakeRetry).
//
// There is no timer and no context for each request. One goroutine for each
// pool, which lives only while something is under way, looks every 50 ms at who
// has been waiting for too long.
package upstream

import (
	"errors"
	"time"
)

// Why a request got no answer.
var (
	ErrNoTarget    = errors.New("no target is in service")
	ErrShed        = errors.New("too many requests are under way for the latency there is")
	ErrQueueFull   = errors.New("too many requests wait for a target")
	ErrQueueTime   = errors.New("no target became free in time")
	ErrHeadTimeout = errors.New("target did not answer in time")
	ErrEjected     = errors.New("target was ejected before it answered")
	ErrRefused     = errors.New("target could not be connected to") // nothing was sent
)

// epoch lies so far back that Now is positive where the clock begins in the
// year 2000, too, as in testing/synctest.
var epoch = time.Now().Add(-50 * 365 * 24 * time.Hour)

// Now is the clock that this package takes times from: monotonic, in nanoseconds.
func Now() int64 { return int64(time.Since(epoch)) }

// Outcome is how an exchange with a target went.
type Outcome uint8

// The outcomes.
const (
	OK        Outcome = iota // it answered
	Bad                      // it answered 502, 503 or 504
	Broken                   // the connection broke, or what came is not HTTP
	Late                     // no head within Settings.Timeout
	Cancelled                // the client's doing, or taken back: says nothing of the target
)
