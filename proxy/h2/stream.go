package h2

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"trivet/proxy/wire"
)

// Stream is one request and its answer: proxy.Stream of HTTP/2.
type Stream struct {
	conn    *Conn
	id      uint32
	head    head // what was decoded, with Request's fields
	request wire.Request

	// Under conn.mu, as all below.
	readable sync.Cond // body, ended, gone or told changed
	writable sync.Cond // send or gone changed
	body     body
	recv     window
	left     int64 // of the body, by its content-length; -1: not known
	trailer  []wire.Field
	ended    bool // the client ended its side
	awaited  bool // 100 Continue is awaited

	send    int64 // the client's window
	begun   bool  // the head of the answer is out
	bare    bool  // the answer has no body, by the method or status
	done    bool  // we ended our side
	owed    int64 // of the answer's body, by its length; -1: not known
	flagsAt int   // of the last frame, in the out that had this epoch
	epoch   uint32

	gone    bool // reset by either side, or lost with the connection
	err     error
	onGone  func()
	telling bool

	reserved bool // awaitedBody is counted as held

	waits int8          // how many wait for the client
	moved int64         // when the client last did what is waited for
	spent time.Duration // on waiting for the client, in steps of the sweep
	came  int64         // bytes that went either way
}

var streams = sync.Pool{New: func() any { return new(Stream) }}

// ErrBody is returned for an answer whose body is not as long as was said.
var ErrBody = errors.New("answer's body is not as long as its head says")

// ErrEnded is returned by Read once the answer has ended before the body.
var ErrEnded = errors.New("stream was answered before its body ended")

// open makes s one of c's streams and has it answered. mu is held.
func (c *Conn) open(s *Stream, ended bool) {
	s.readable.L, s.writable.L = &c.mu, &c.mu
	s.recv = window{size: firstWindow, avail: firstWindow}
	s.send, s.left, s.owed = c.peer.window, s.request.Length, -1
	s.awaited = s.request.Expect && !ended
	s.moved = c.cfg.sweep.now.Load()
	s.ended = ended
	c.streams[s.id] = s
	c.handlers++
	c.enqueue(s)
}

// serve runs the handler and ends what it left open.
func (s *Stream) serve() {
	c := s.conn
	c.cfg.Handle(s)
	c.mu.Lock()
	switch {
	case s.gone:
		c.zombies--
	case !s.done:
		c.closed.add(s.id, byUs)
		c.number(frameReset, s.id, codeInternal)
	case !s.ended:
		c.closed.add(s.id, byUs)
		c.number(frameReset, s.id, codeNo)
	}
	if n := s.body.clear(); n > 0 {
		c.reading(s, n)
	}
	c.unreserve(s)
	delete(c.streams, s.id)
	for s.telling {
		s.readable.Wait()
	}
	c.handlers--
	c.flush(shared)
	if c.handlers == 0 {
		c.idle.Broadcast()
	}
	c.mu.Unlock()
	s.free()
}

// free gives s back, with what it had grown.
func (s *Stream) free() {
	s.head.reset()
	clear(s.trailer)
	*s = Stream{head: s.head, trailer: s.trailer[:0]}
	streams.Put(s)
}

// lose ends s for err without a word to the client. mu is held.
func (c *Conn) lose(s *Stream, err error) {
	if s.gone {
		return
	}
	s.gone, s.err = true, err
	delete(c.streams, s.id)
	if c.unqueue(s) {
		return
	}
	c.zombies++
	s.readable.Broadcast()
	s.writable.Broadcast()
	c.room.Broadcast()
	if s.onGone != nil {
		s.telling = true
		c.cfg.crew.Run(job{gone: s})
	}
}

// cut resets s for what the client did. mu is held.
func (c *Conn) cut(s *Stream, code uint32, why string) error {
	c.number(frameReset, s.id, code)
	c.closed.add(s.id, byUs)
	c.lose(s, &fault{code, why})
	if err := c.spend(faults); err != nil {
		return err
	}
	return c.answered()
}

// stop resets s because its client made no progress. mu is held.
func (c *Conn) stop(s *Stream) {
	c.number(frameReset, s.id, codeCancel)
	c.closed.add(s.id, byUs)
	c.lose(s, ErrStill)
	c.flushSoon()
}

// tell calls what was handed to OnGone.
func (s *Stream) tell() {
	s.conn.mu.Lock()
	f := s.onGone
	s.conn.mu.Unlock()
	if f != nil {
		f()
	}
	s.conn.mu.Lock()
	s.telling = false
	s.readable.Broadcast()
	s.conn.mu.Unlock()
}

// remoteEnd ends the client's side. mu is held.
func (c *Conn) remoteEnd(s *Stream) {
	s.ended = true
	c.endIfWhole(s)
}

// endIfWhole closes s once both sides have ended. mu is held.
func (c *Conn) endIfWhole(s *Stream) {
	if s.ended && s.done && !s.gone && c.streams[s.id] == s {
		delete(c.streams, s.id)
		c.closed.add(s.id, whole)
		c.earned()
	}
}

// Request is the request's head, until Handle returns.
func (s *Stream) Request() *wire.Request { return &s.request }

// OnGone has f called once, on another goroutine, if the client resets the
// stream or the connection ends before Handle returns, which waits for f.
func (s *Stream) OnGone(f func()) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.onGone = f
	if s.gone && f != nil && !s.telling {
		s.telling = true
		s.conn.cfg.crew.Run(job{gone: s})
	}
}

// Read reads the request's body; io.EOF at its end. The first Read sends 100
// Continue to a client that awaits it. Once the answer has begun it may wait
// for as long as the client is there.
func (s *Stream) Read(p []byte) (n int, err error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s.goOn()
	for s.body.n == 0 && !s.ended && !s.gone && !s.done {
		s.wait(&s.readable, !s.begun)
	}
	switch {
	case s.gone:
		return 0, s.err
	case s.body.n == 0 && !s.ended:
		return 0, ErrEnded
	case s.body.n == 0:
		return 0, io.EOF
	}
	n = s.body.take(p)
	if c.reading(s, n) {
		c.flush(shared)
	}
	return n, nil
}

// goOn sends 100 Continue to a client that awaits it. mu is held.
func (s *Stream) goOn() {
	if !s.awaited || s.begun || s.gone {
		return
	}
	s.awaited = false
	c := s.conn
	c.appendHead(s.id, 0, c.encoder.begin(100))
	c.flush(shared)
}

// wait waits for the client; where bounded, the sweep ends it after Config.Still. mu is held.
func (s *Stream) wait(cond *sync.Cond, bounded bool) {
	if !bounded {
		cond.Wait()
		return
	}
	if s.waits == 0 {
		s.moved = s.conn.cfg.sweep.now.Load()
	}
	s.waits++
	cond.Wait()
	s.waits--
}

// Trailer is what followed the body, once Read has returned io.EOF.
func (s *Stream) Trailer() []wire.Field {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.trailer
}

// Net is the connection that was given to New: by it the owner knows whose stream s is.
func (s *Stream) Net() net.Conn { return s.conn.net }
