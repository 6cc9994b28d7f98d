package h2

import "trivet/proxy/wire"

// Head begins the answer, or sends an interim one, as proxy.Stream says.
func (s *Stream) Head(status int, fields []wire.Field, length int64) error {
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full() && status >= 200 {
		defer s.hold(awaitedBody)()
	}
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
			s.awaitWindow(n)
		case c.full():
			if err := s.drainedOf(n); err != nil {
				return 0, err
			}
		default:
			return int(m), nil
		}
	}
}

// awaitWindow waits until the client may have opened its window, with n bytes in hand. mu is held.
func (s *Stream) awaitWindow(n int) {
	c := s.conn
	c.flush(shared)
	if min(s.send, c.send) <= 0 && !s.gone {
		defer s.hold(n)()
		s.wait(&s.writable, true)
	}
}

// drainedOf is drained, with n bytes in hand. mu is held.
func (s *Stream) drainedOf(n int) error {
	defer s.hold(n)()
	return s.drained()
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
	s.came += n
	s.send -= n
	c.send -= n
	c.taken += n
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
