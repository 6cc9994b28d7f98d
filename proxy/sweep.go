package proxy

import (
	"iter"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	sweepStep = 100 * time.Millisecond // while anything is under way
	restStep  = time.Second            // while connections only wait, parked or not yet
	// watchAfter is when a client that waits for its answer is watched for
	// going away.
	watchAfter = int64(250 * time.Millisecond)

	// crowded is from how many active connections on those that only wait for
	// another request are parked after crowdedWait, for the memory they hold,
	// and new ones until they have sent something.
	crowded     = 100
	crowdedWait = 100 * time.Millisecond
	// reliefAfter is after how many parkings the memory that was held by those
	// connections is given back to the kernel, once no more than calm are
	// parked in a second and no more goroutines are idle.
	reliefAfter = 1000
	calm        = 50
	// crowdHeld is from how many bytes on that exchanges held at a time, of which
	// a quarter is left for crowdGone seconds, the memory is given back too.
	crowdHeld = 16 << 20
	crowdGone = 3
)

// sweep keeps the limits of all connections until over is closed.
func (s *Server) sweep(over <-chan struct{}) {
	defer s.timer.Stop()
	var tidied int64
	untidy := false // more is held than what is active needs
	for {
		select {
		case <-s.timer.C:
		case <-over:
			return
		}
		now := sinceEpoch()
		s.clock.Store(now)
		wait := s.look(now)
		untidy = untidy || wait > 0
		if untidy && now-tidied >= int64(time.Second) {
			tidied, untidy = now, s.tidy()
		}
		if untidy && wait == 0 {
			wait = time.Second
		}
		s.sleep(wait)
	}
}

// sleep sets when to look next, unless the sweep was roused since it looked.
func (s *Server) sleep(wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if wait == sweepStep || wait > 0 && s.resting.Load() {
		s.timer.Reset(wait)
	}
}

// rouse makes the clock right, and ends a rest of the sweep. It is called with
// s.mu held.
func (s *Server) rouse() {
	if s.resting.Load() {
		s.clock.Store(sinceEpoch())
		s.resting.Store(false)
		s.timer.Reset(sweepStep)
	}
}

// rests says that the sweep has little to look at until it is roused, and it
// will be: who begins something says so first and then asks whether it rests.
// It is called with s.mu held.
func (s *Server) rests() bool {
	if s.active.n > crowded || !s.quiet() {
		return false
	}
	s.resting.Store(true)
	if !s.quiet() {
		s.resting.Store(false)
	}
	return s.resting.Load()
}

// quiet says that nothing is under way on any connection but tunnels, which
// have no limits. It is called with s.mu held.
func (s *Server) quiet() bool {
	for c := s.active.first; c != nil; c = c.next {
		if !c.waits() {
			return false
		}
	}
	return true
}

// tidy gives back what is not used any more, and says whether there is more to come.
func (s *Server) tidy() (more bool) {
	left := s.crew.Trim()
	ebbed := s.tide.ebbed()
	if left <= calm && s.wantsRelief() || ebbed {
		s.parts.Go(relieve)
	}
	return left > 0 || s.tide.high.Load() > 0
}

// wantsRelief is asked each second whether much memory was used by connections that are parked now.
func (s *Server) wantsRelief() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := s.parkings - s.parkingsSeen
	s.parkingsSeen = s.parkings
	if s.parkings < reliefAfter || fresh > calm {
		return false
	}
	s.parkings, s.parkingsSeen = 0, 0
	return true
}

// tide is how much exchanges held at most.
type tide struct {
	high atomic.Int64 // 0: not much
	low  int          // seconds since when it is a quarter of that at most
}

// ebbed is asked each second whether most of much memory is not used any more.
func (t *tide) ebbed() bool {
	now, high := inUse.Load(), t.high.Load()
	switch {
	case now >= crowdHeld && now > high:
		t.high.Store(now)
		t.low = 0
	case high == 0:
	case now > high/4:
		t.low = 0
	default:
		t.low++
	}
	if t.low < crowdGone {
		return false
	}
	t.high.Store(0)
	t.low = 0
	return true
}

// relieve empties the pools, of which a collection leaves what was used since the one before it.
func relieve() {
	runtime.GC()
	debug.FreeOSMemory()
}

// look interrupts who is over a limit and says when to look again; 0: not before something happens.
func (s *Server) look(now int64) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	early := int64(0) // that those who only wait are ended
	if s.active.n > crowded {
		early = int64(idleWait - crowdedWait)
	}
	for c := s.active.first; c != nil; c = c.next {
		c.expire(now, early)
		if began := c.exchange.Load(); began > 0 && now-began > watchAfter {
			c.watchClient(began)
		}
	}
	for c := s.parked.first; c != nil && c.until <= now; c = s.parked.first {
		s.parked.remove(c)
		c.until = -1
		s.active.push(c)
		s.crew.Run(c)
	}
	switch {
	case !s.rests():
		return sweepStep
	case s.active.n > 0 || s.parked.n > 0:
		return restStep
	}
	return 0
}

// join puts c among the active ones, and says how many they are.
func (s *Server) join(c *conn) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.activate(c)
	return s.active.n
}

// activate is called with s.mu held.
func (s *Server) activate(c *conn) {
	s.active.push(c)
	s.rouse()
}

// quit takes c off its list.
func (s *Server) quit(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.on != nil {
		c.on.remove(c)
	}
}

// lotted is what became of a connection that was to be parked.
type lotted uint8

const (
	parked lotted = iota
	stays         // HTTP/2, and the server drains
	ends          // the server waits for no more requests
)

// toLot moves c among the parked ones, if the server has time for that.
func (s *Server) toLot(c *conn, idle time.Duration) lotted {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.h2 != nil && s.draining.Load():
		return stays
	case s.ending.Load():
		return ends
	}
	c.on.remove(c)
	c.until = expired
	if idle > 0 {
		c.until = s.clock.Load() + int64(idle)
	}
	s.parked.push(c)
	s.parkings++
	return parked
}

// fromLot moves c among the active ones; false: another has done so.
func (s *Server) fromLot(c *conn, run bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.on != &s.parked {
		return false
	}
	s.parked.remove(c)
	s.activate(c)
	if run {
		s.crew.Run(c)
	}
	return true
}

// ready is called for what the epoll saw of c.
func (s *Server) ready(c *conn, events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 && !s.fromLot(c, true) {
		c.clientEvent(events)
	}
}

// tellParked has HTTP/2 clients told that wait, and are parked.
func (s *Server) tellParked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := s.parked.first; c != nil; {
		next := c.next
		if c.h2 != nil {
			s.parked.remove(c)
			s.activate(c)
			s.crew.Run(c)
		}
		c = next
	}
}

// unparkAll gives all parked connections, which are active then.
func (s *Server) unparkAll() iter.Seq[*conn] {
	return func(yield func(*conn) bool) {
		for {
			s.mu.Lock()
			c := s.parked.first
			if c != nil {
				s.parked.remove(c)
				c.until = -1
				s.activate(c)
			}
			s.mu.Unlock()
			if c == nil || !yield(c) {
				return
			}
		}
	}
}
