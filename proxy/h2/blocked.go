package h2

import (
	"slices"
	"sync/atomic"
	"time"
)

// What handlers hold while a client does not take it is bounded: with maxBlocked
// of it on a connection, or any of it there while all connections together have
// maxBlockedAll, no further stream of the connection begins. It is open, and
// waits.
const (
	maxBlocked    = 1 << 20
	maxBlockedAll = 64 << 20
	// While all together hold maxBlockedAll, a client has to take a sixteenth of
	// what is held for it in each heldTime.
	heldTime  = int64(2 * time.Second)
	heldShare = 16
	// awaitedBody is what a handler is taken to hold whose answer's head is waited for.
	awaitedBody = 64 << 10
)

var blockedAll atomic.Int64

// Blocked is how many bytes the handlers of this process hold until their clients take more.
func Blocked() int64 { return blockedAll.Load() }

// hold counts n bytes as held until the returned function is called. mu is held both times.
func (s *Stream) hold(n int) (release func()) {
	c := s.conn
	if s.reserved {
		return func() {}
	}
	c.count(n)
	return func() {
		c.count(-n)
		c.beginQueued()
	}
}

func (c *Conn) count(n int) {
	c.blocked += n
	blockedAll.Add(int64(n))
}

// launch has s served. Where the client takes nothing as it is, s is counted at
// once with what it will hold, for its answer may take a while. mu is held.
func (c *Conn) launch(s *Stream) {
	if min(s.send, c.send) <= 0 {
		s.reserved = true
		c.count(awaitedBody)
	}
	c.cfg.crew.Run(job{stream: s})
}

// unreserve ends that. mu is held.
func (c *Conn) unreserve(s *Stream) {
	if s.reserved {
		s.reserved = false
		c.count(-awaitedBody)
	}
	c.beginQueued()
}

// checkHeld cuts a client that takes hardly anything of what is held for it,
// while all together hold too much: else many of them, with little each, would
// hold without bound. mu is held.
func (c *Conn) checkHeld(now int64) {
	switch {
	case c.err != nil:
		return
	case c.blocked == 0 || blockedAll.Load() < maxBlockedAll:
	case now-c.held <= heldTime:
		return
	case c.taken-c.seen < int64(c.blocked)/heldShare:
		c.goAway(c.last, codeCalm, "what was asked for is not taken")
		c.fail(ErrStill)
		c.wake()
		return
	}
	c.seen, c.held = c.taken, now
}

// reopened looks, after a window grew, who is not taken any more to hold an
// answer back. mu is held.
func (c *Conn) reopened() {
	if c.blocked == 0 {
		return
	}
	for _, s := range c.streams {
		if s.reserved && min(s.send, c.send) > 0 {
			c.unreserve(s)
		}
	}
}

func (c *Conn) crowded() bool {
	return c.blocked >= maxBlocked || c.blocked > 0 && blockedAll.Load() >= maxBlockedAll
}

// enqueue has s served, at once if there is room for what it will hold. mu is held.
func (c *Conn) enqueue(s *Stream) {
	if len(c.queue) == 0 && !c.crowded() {
		c.launch(s)
		return
	}
	c.queue = append(c.queue, s)
}

// beginQueued has those served that waited, as long as there is room. mu is held.
func (c *Conn) beginQueued() {
	for len(c.queue) > 0 && !c.crowded() {
		s := c.queue[0]
		c.queue = slices.Delete(c.queue, 0, 1)
		c.launch(s)
	}
}

// unqueue takes s out of the queue, and says whether it was there. Nobody has
// begun it, so there is nothing to wait for. mu is held.
func (c *Conn) unqueue(s *Stream) bool {
	i := slices.Index(c.queue, s)
	if i < 0 {
		return false
	}
	c.queue = slices.Delete(c.queue, i, i+1)
	if n := s.body.clear(); n > 0 && c.reading(s, n) {
		c.flushSoon()
	}
	if c.handlers--; c.handlers == 0 {
		c.idle.Broadcast()
	}
	return true
}
