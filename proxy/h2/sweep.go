package h2

import (
	"sync"
	"sync/atomic"
	"time"
)

// sweep keeps the time limits of all connections that are served. Its goroutine
// runs while there is one.
type sweep struct {
	now atomic.Int64 // in nanoseconds, as of the last step

	mu      sync.Mutex
	conns   map[*Conn]struct{}
	running bool
	start   time.Time
}

const (
	step = 250 * time.Millisecond
	trim = 4 // steps, between two looks at who of the crew has nothing to do

	// noticeTime is for the requests that were under way when the client was told
	// that the connection ends (RFC 9113, 6.8: at least a round trip).
	noticeTime = int64(time.Second)
)

func (w *sweep) add(c *Conn, cfg *Config) (now int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns == nil {
		w.conns, w.start = make(map[*Conn]struct{}), time.Now()
	}
	w.conns[c] = struct{}{}
	if !w.running {
		w.running = true
		w.tick()
		go w.run(cfg)
	}
	return w.now.Load()
}

func (w *sweep) drop(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// tick reads the clock; a second is added so that no time is 0.
func (w *sweep) tick() int64 {
	now := int64(time.Since(w.start) + time.Second)
	w.now.Store(now)
	return now
}

func (w *sweep) run(cfg *Config) {
	var all []*Conn
	t := time.NewTicker(step)
	defer t.Stop()
	for n := 1; ; n++ {
		all = w.collect(all[:0])
		if len(all) == 0 {
			cfg.crew.Clear()
			return
		}
		now := w.tick()
		for _, c := range all {
			c.check(now)
		}
		clear(all)
		if n%trim == 0 {
			cfg.crew.Trim()
		}
		<-t.C
	}
}

// collect is all connections; without one the sweep is over.
func (w *sweep) collect(all []*Conn) []*Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		all = append(all, c)
	}
	w.running = len(all) > 0
	return all
}

// check ends what is over its time.
func (c *Conn) check(now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.serving {
		return
	}
	c.rise()
	c.checkLeaving(now)
	c.checkConn(now)
	c.beginQueued()
	c.checkHeld(now)
	for _, s := range c.streams {
		if s.waits > 0 && s.tooSlow(now) {
			c.stop(s)
		}
	}
}

// tooSlow says that the client, which is waited for, makes no progress or too
// little of it. mu is held.
func (s *Stream) tooSlow(now int64) bool {
	c, came := s.conn, s.came
	if c.half.Load() == s.id {
		s.moved = max(s.moved, c.heard.Load())
		came += maxFrame
	}
	s.spent += step
	return now-s.moved > int64(c.cfg.Still) || s.spent > c.cfg.Still && came < int64(s.spent/time.Millisecond)*int64(c.cfg.Rate)/1000
}

// checkConn looks at the connection itself. mu is held.
func (c *Conn) checkConn(now int64) {
	since := c.partial.Load()
	quiet := now - c.heard.Load()
	switch {
	case c.err != nil:
	case since != 0 && now-since > int64(c.cfg.Head):
		c.fail(ErrSlowHead)
		c.wake()
	case c.writing && now-c.wrote > int64(c.cfg.Still):
		c.fail(ErrStill)
		_ = c.net.SetDeadline(past)
	case c.busy():
		c.checkAlive(now, quiet)
	case quiet > int64(c.cfg.Park) && since == 0 && c.leaving == staying && !c.parking:
		c.parking = true
		c.wake()
	}
}

// checkAlive asks a client that has been silent, with streams open, whether it is
// still there. mu is held.
func (c *Conn) checkAlive(now, quiet int64) {
	switch {
	case quiet < int64(c.cfg.Still):
		c.pings = 0
	case c.pings == 0:
		c.pings = now
		o := c.frame(framePing, 0, 0, 8)
		o.b = append(o.b, "trivet\r\n"...)
		c.flushSoon()
	case now-c.pings > int64(c.cfg.Still):
		c.fail(ErrStill)
		_ = c.net.SetDeadline(past)
	}
}

// checkLeaving goes on with a graceful end. mu is held.
func (c *Conn) checkLeaving(now int64) {
	if c.leaving == noticed && c.leftAt > 0 && now-c.leftAt > noticeTime {
		c.leaving, c.lastGood = final, c.last
		c.goAway(c.last, codeNo, "")
		c.flushSoon()
	}
	if c.leaving == final && !c.busy() {
		c.wake()
	}
}
