package h2

import (
	"errors"
	"io"
	"net"
	"sync"

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

	waits int8  // how many wait for the client
	moved int64 // when the client last did what is waited for
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
	c.cfg.crew.run(job{stream: s})
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
	c.zombies++
	delete(c.streams, s.id)
	s.readable.Broadcast()
	s.writable.Broadcast()
	c.room.Broadcast()
	if s.onGone != nil {
		s.telling = true
		c.cfg.crew.run(job{gone: s})
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
		s.conn.cfg.crew.run(job{gone: s})
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

// Head begins the answer, or sends an interim one, as proxy.Stream says.
func (s *Stream) Head(status int, fields []wire.Field, length int64) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.drained(); err != nil || s.begun || status == 101 {
		return s.why()
	}
	block := c.encoder.begin(status)
	if status < 200 {
		s.awaited = s.awaited && status != 100
		c.appendHead(s.id, 0, c.encoder.fields(block, fields))
		c.flush(shared)
		return nil
	}
	s.begin(status, length)
	// Of a 304 too it would be right, but net/http's client then misses the body.
	keep := length <= 0 && string(s.request.Method) == "HEAD" && status != 204 && status != 304
	block = c.encoder.answer(block, fields, keep)
	if length > 0 || length == 0 && !s.bare {
		block = c.encoder.length(block, length)
	}
	s.mark(c.appendHead(s.id, 0, block))
	return nil
}

// begin notes what the answer's head says of its body. mu is held.
func (s *Stream) begin(status int, length int64) {
	s.begun, s.awaited = true, false
	s.bare = status == 204 || status == 304 || string(s.request.Method) == "HEAD"
	if s.owed = length; s.bare {
		s.owed = 0
	}
}

// mark remembers where the flags of the frame are that was appended last. mu is held.
func (s *Stream) mark(at int) { s.flagsAt, s.epoch = at, s.conn.epoch }

// why a method refuses. mu is held.
func (s *Stream) why() error {
	if s.err != nil {
		return s.err
	}
	return ErrAborted
}

// Write sends a part of the answer's body. The last part, by the length that
// Head was told, waits for End.
func (s *Stream) Write(p []byte) (n int, err error) {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.bare {
		return len(p), nil
	}
	if !s.begun || s.done {
		return 0, s.why()
	}
	if s.owed >= 0 && int64(len(p)) > s.owed {
		return 0, ErrBody
	}
	for len(p) > 0 {
		m, err := s.room(len(p))
		if err != nil {
			return n, err
		}
		s.append(p[:m])
		n, p = n+m, p[m:]
	}
	if s.owed != 0 {
		c.flush(shared)
	}
	return n, nil
}

// room waits until some of n bytes may be sent, and says how many. mu is held.
func (s *Stream) room(n int) (int, error) {
	c := s.conn
	for {
		switch m := min(int64(n), s.send, c.send, int64(c.peer.maxFrame)); {
		case s.gone:
			return 0, s.err
		case m <= 0:
			c.flush(shared)
			if min(s.send, c.send) <= 0 && !s.gone {
				s.wait(&s.writable, true)
			}
		case c.full():
			if err := s.drained(); err != nil {
				return 0, err
			}
		default:
			return int(m), nil
		}
	}
}

// drained waits until there is room in the connection's buffer: a client that
// does not read is not answered without end. mu is held.
func (s *Stream) drained() error {
	c := s.conn
	for c.full() && !s.gone {
		if c.flush(shared); c.full() && !s.gone {
			c.room.Wait()
		}
	}
	return s.err
}

// append makes a DATA frame of p, for which there is room. mu is held.
func (s *Stream) append(p []byte) {
	c := s.conn
	o := c.frame(frameData, 0, s.id, len(p))
	s.mark(len(o.b) - 5)
	o.b = append(o.b, p...)
	n := int64(len(p))
	s.send -= n
	c.send -= n
	if s.owed > 0 {
		s.owed -= n
	}
	c.earn(updates, 4)
	c.earn(pings, 1)
}

// Flush sends what is held back.
func (s *Stream) Flush() error {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.gone {
		return s.err
	}
	s.conn.flush(shared)
	return nil
}

// End ends the answer.
func (s *Stream) End(trailer []wire.Field) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.gone || !s.begun || s.done:
		return s.why()
	case s.owed > 0:
		return ErrBody
	}
	if len(trailer) > 0 {
		if err := s.drained(); err != nil {
			return err
		}
	}
	switch fresh := s.epoch == c.epoch; {
	case len(trailer) > 0 && !s.bare:
		c.appendHead(s.id, flagEndStream, c.encoder.fields(c.encoder.block[:0], trailer))
	case fresh:
		c.out.b[s.flagsAt] |= flagEndStream
	default:
		c.frame(frameData, flagEndStream, s.id, 0)
	}
	s.done = true
	s.readable.Broadcast() // a Read that is under way fails: nobody cares for the rest
	c.endIfWhole(s)
	c.flush(shared)
	return nil
}

// Abort breaks the answer off by a reset.
func (s *Stream) Abort() {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.gone || s.done {
		return
	}
	c.number(frameReset, s.id, codeInternal)
	c.closed.add(s.id, byUs)
	s.onGone = nil
	c.lose(s, ErrAborted)
	c.flush(shared)
}

// Net is the connection that was given to New: by it the owner knows whose stream s is.
func (s *Stream) Net() net.Conn { return s.conn.net }
