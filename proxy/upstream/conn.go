package upstream

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trivet/proxy/socket"
)

// Phases of a connection: negative ones are final, more than one is the time
// since which an answer's head is awaited.
const (
	phaseLate    = -2 // interrupted: no head in time
	phaseEjected = -1 // interrupted: the target went down
	phaseNone    = 0  // no request on it, or its answer's head has come
	phaseBegun   = 1  // a request is being written
)

// past is the deadline of what is interrupted.
var past = time.Unix(1, 0)

// Conn is a connection to a target that carries one request at a time.
type Conn struct {
	net.Conn
	target *Target
	pool   *Pool           // that counts it in gate.begun
	raw    syscall.RawConn // of the socket, beneath TLS too; nil: there is none
	plain  bool
	socket socket.Socket // if plain
	reused bool          // an exchange was on it before: if it breaks at once, that says little of the target
	came   bool          // the answer's head
	awaits bool          // counted in gate.awaited
	tunnel bool
	used   int64 // last known use
	began  int64 // of the wait for the head
	took   int64 // that wait
	late   int64 // when the target is suspect because of it; the sweep's own
	phase  atomic.Int64
	cause  atomic.Pointer[error]
	closed atomic.Bool
	index  int // in Target.open

	poll  [1]unix.PollFd
	stale bool
	look  func(fd uintptr) bool // poll's, made once
}

// Target is whose connection it is.
func (c *Conn) Target() *Target { return c.target }

// Raw is the socket, for splice; nil for TLS.
func (c *Conn) Raw() syscall.RawConn {
	if !c.plain {
		return nil
	}
	return c.raw
}

// Read reads from the connection.
func (c *Conn) Read(p []byte) (int, error) {
	if c.socket.Ready() {
		return c.socket.Read(p)
	}
	return c.Conn.Read(p)
}

// Write writes to it.
func (c *Conn) Write(p []byte) (int, error) {
	if c.socket.Ready() {
		return c.socket.Write(p)
	}
	return c.Conn.Write(p)
}

// CloseWrite tells the target that no more comes; it may still send.
func (c *Conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// Begin tells that a request is put on it. Until Came the request can be taken back.
func (c *Conn) Begin() {
	t := c.target
	c.came, c.took = false, 0
	t.inFlight.Add(1)
	t.requests.Add(1)
	c.phase.Store(phaseBegun)
	if State(t.state.Load()) == Down {
		c.takeBack(phaseBegun, phaseEjected)
	}
	if p := t.pool.Load(); p != nil {
		c.pool = p
		p.gate.begun.Add(1)
		p.sweep()
	}
}

// Await tells that the request is written and the answer's head awaited. It may
// be called again, for a request that is sent while an interim answer comes.
func (c *Conn) Await(now int64) {
	c.began = now
	c.used = now
	if c.pool != nil && !c.awaits {
		c.awaits = true
		c.pool.gate.awaited.Add(1)
	}
	if p := c.phase.Load(); p >= 0 {
		c.phase.CompareAndSwap(p, max(now, phaseBegun+1))
	}
}

// Came tells that the answer's head has come. It returns why the request was
// taken back at the last moment; the answer must then not be used.
func (c *Conn) Came(now int64) error {
	p := c.phase.Load()
	if p < 0 || !c.phase.CompareAndSwap(p, phaseNone) {
		return c.Cause()
	}
	c.came = true
	c.used = now
	c.settled()
	if p > phaseBegun {
		c.took = max(now-c.began, 1)
		c.target.latency.observe(now, c.took)
		c.target.passive.times.add(c.took)
	}
	return nil
}

// settled ends the time in which the request is with the target without a head.
func (c *Conn) settled() {
	if c.pool == nil {
		return
	}
	if c.awaits {
		c.pool.gate.awaited.Add(-1)
	}
	c.pool.gate.begun.Add(-1)
	c.pool, c.awaits = nil, false
}

// takeBack interrupts the connection unless its phase is another by now.
func (c *Conn) takeBack(from, to int64) {
	if c.phase.CompareAndSwap(from, to) {
		_ = c.SetDeadline(past)
	}
}

// Interrupt ends reads and writes at once. It may be called by any goroutine,
// but not after Done: the connection may then carry another's request.
func (c *Conn) Interrupt(cause error) {
	c.cause.CompareAndSwap(nil, &cause)
	_ = c.SetDeadline(past)
}

// Cause is why the connection was interrupted, or nil.
func (c *Conn) Cause() error {
	if p := c.cause.Load(); p != nil {
		return *p
	}
	switch c.phase.Load() {
	case phaseEjected:
		return ErrEjected
	case phaseLate:
		return ErrHeadTimeout
	}
	return nil
}

// Tunnel tells that the connection has become a tunnel: it counts neither for
// the limit of requests nor for time limits any more, and is not taken back when
// its target goes down. Done ends it.
func (c *Conn) Tunnel() {
	if p := c.phase.Load(); p > 0 {
		c.phase.CompareAndSwap(p, phaseNone)
	}
	c.settled()
	c.tunnel = true
	c.target.tunnels.Add(1)
	c.target.leave()
}

// Done ends the exchange. The connection is kept for another if keep and if it
// may be; it must not be used any more.
func (c *Conn) Done(o Outcome, keep bool) {
	t := c.target
	if p := c.phase.Load(); p > 0 {
		c.phase.CompareAndSwap(p, phaseNone)
	}
	c.settled()
	if c.tunnel {
		t.tunnels.Add(-1)
	} else {
		t.leave()
	}
	t.account(c, o)
	c.reused = true
	if !keep || c.tunnel || c.Cause() != nil || !t.keep(c) {
		_ = c.Close()
	}
}

// Close closes the connection; Done does it where it is due.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.target.forget(c)
	return c.Conn.Close()
}
