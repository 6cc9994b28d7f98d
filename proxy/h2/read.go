package h2

import (
	"encoding/binary"
	"errors"
	"io"
	"syscall"
)

// read handles frames until the connection is over, idle or drained.
func (c *Conn) read() error {
	if err := c.preface(); err != nil {
		return err
	}
	for {
		if err := c.frames(); err != nil {
			return err
		}
		if err := c.fill(); err != nil {
			return c.ended(err)
		}
	}
}

// preface awaits what a connection begins with, and sends our SETTINGS before.
func (c *Conn) preface() error {
	c.speak()
	if c.started {
		return nil
	}
	for c.w-c.r < len(prefaceText) {
		if n := c.w - c.r; string(c.in.b[c.r:c.w]) != prefaceText[:n] {
			return protocol("no preface")
		}
		if err := c.fill(); err != nil {
			return c.ended(err)
		}
	}
	if string(c.in.b[c.r:c.r+len(prefaceText)]) != prefaceText {
		return protocol("no preface")
	}
	c.r += len(prefaceText)
	c.started = true
	return nil
}

// speak says what is to be said before anything is read.
func (c *Conn) speak() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started {
		c.greet()
	}
	if c.leaving == noticed && c.leftAt == 0 {
		c.notice()
	}
	c.flushSoon()
}

// fill reads more, at least a byte.
func (c *Conn) fill() error {
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	if c.r > 0 && len(c.in.b)-c.r < frameHead+maxFrame {
		c.w = copy(c.in.b, c.in.b[c.r:c.w])
		c.r = 0
	}
	n, err := c.net.Read(c.in.b[c.w:])
	c.w += n
	if n > 0 {
		c.heard.Store(c.cfg.sweep.now.Load())
		return nil
	}
	return c.interrupted(err)
}

// ended says what the end of the reading means: nothing bad, between requests.
func (c *Conn) ended(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) > 0 || c.r != c.w || c.block.stream != 0 {
		return io.ErrUnexpectedEOF
	}
	return errLeft
}

// frames handles all frames that have come in whole, and notes since when one
// that has not is awaited.
func (c *Conn) frames() error {
	for c.w-c.r >= frameHead {
		b := c.in.b[c.r:c.w]
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		f := frame{kind: b[3], flags: b[4], stream: binary.BigEndian.Uint32(b[5:]) & maxStream}
		if n > maxFrame {
			return &fault{codeFrameSize, "frame is larger than allowed"}
		}
		if len(b) < frameHead+n {
			c.awaitRest(f)
			return nil
		}
		if err := c.handle(f, b[frameHead:frameHead+n]); err != nil {
			return err
		}
		c.r += frameHead + n
	}
	if c.half.Load() != 0 {
		c.half.Store(0)
		c.partial.Store(0)
	}
	c.await(c.w > c.r || c.block.stream != 0 || !c.greeted)
	return nil
}

// awaitRest awaits the rest of a frame. A large one of DATA may take its time, as
// long as something of it comes within Config.Still.
func (c *Conn) awaitRest(f frame) {
	if f.kind != frameData || f.stream == 0 || c.block.stream != 0 || !c.greeted {
		c.await(true)
		return
	}
	c.half.Store(f.stream)
	c.partial.Store(c.cfg.sweep.now.Load() + int64(c.cfg.Still-c.cfg.Head))
}

// await notes that something must come whole within Config.Head, or that nothing must.
func (c *Conn) await(something bool) {
	switch since := c.partial.Load(); {
	case !something && since != 0:
		c.partial.Store(0)
	case something && since == 0:
		c.partial.Store(c.cfg.sweep.now.Load())
	}
}

func (c *Conn) handle(f frame, p []byte) error {
	if !c.greeted && (f.kind != frameSettings || f.has(flagEndStream)) {
		return protocol("no SETTINGS after the preface")
	}
	if c.block.stream != 0 && f.kind != frameContinuation {
		return protocol("head is interrupted")
	}
	switch f.kind {
	case frameData:
		return c.data(f, p)
	case frameHeaders:
		return c.headers(f, p)
	case frameContinuation:
		return c.continuation(f, p)
	case frameReset:
		return c.reset(f, p)
	case frameSettings:
		return c.settings(f, p)
	case framePing:
		return c.ping(f, p)
	case frameWindow:
		return c.windowUpdate(f, p)
	case framePriority:
		return c.priority(f, p)
	case framePush:
		return protocol("PUSH_PROMISE from a client")
	case frameGoAway:
		return c.clientLeaves(f, p)
	}
	return c.take(other)
}

// take is spend for the reading goroutine.
func (c *Conn) take(k level) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spend(k)
}

func (c *Conn) data(f frame, p []byte) error {
	if f.stream == 0 {
		return protocol("DATA without a stream")
	}
	b, _, err := unpad(f, p)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.stream > c.last {
		return protocol("DATA on an idle stream")
	}
	if len(p) > c.recv.avail {
		return &fault{codeFlow, "DATA beyond the connection's window"}
	}
	c.recv.avail -= len(p)
	if len(b) == 0 && !f.has(flagEndStream) {
		if err := c.spend(empty); err != nil {
			return err
		}
	}
	s := c.streams[f.stream]
	if s == nil {
		c.consumed(len(p))
		return c.strayData(f.stream)
	}
	return c.body(s, f, len(p), b)
}

// strayData answers DATA on a stream that is closed: what was under way when we
// closed it is let pass. mu is held.
func (c *Conn) strayData(id uint32) error {
	if err := c.spend(stray); err != nil {
		return err
	}
	if c.leaving == final && id > c.lastGood || c.closed.how(id) == byUs {
		return nil
	}
	return c.refuse(id, codeStreamClosed)
}

// body takes in a DATA frame of n bytes, of which b is data. mu is held.
func (c *Conn) body(s *Stream, f frame, n int, b []byte) error {
	if s.ended {
		c.consumed(n)
		return c.cut(s, codeStreamClosed, "DATA after the end of its stream")
	}
	if n > s.recv.avail {
		c.consumed(n)
		return c.cut(s, codeFlow, "DATA beyond its stream's window")
	}
	if s.left >= 0 {
		s.left -= int64(len(b))
		if s.left < 0 || f.has(flagEndStream) && s.left > 0 {
			c.consumed(n)
			return c.cut(s, codeProtocol, "body is not as long as its content-length says")
		}
	}
	s.recv.avail -= n
	if pad := n - len(b); pad > 0 && c.reading(s, pad) {
		c.flushSoon()
	}
	s.body.put(b)
	s.moved = c.cfg.sweep.now.Load()
	s.came += int64(len(b))
	if f.has(flagEndStream) {
		c.remoteEnd(s)
	}
	s.readable.Signal()
	return nil
}

func (c *Conn) reset(f frame, p []byte) error {
	if f.stream == 0 {
		return protocol("RST_STREAM without a stream")
	}
	if len(p) != 4 {
		return &fault{codeFrameSize, "RST_STREAM of a wrong size"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.stream > c.last {
		return protocol("RST_STREAM on an idle stream")
	}
	s := c.streams[f.stream]
	if s == nil {
		return c.spend(stray)
	}
	c.closed.add(s.id, byPeer)
	c.lose(s, ErrReset)
	return c.spend(resets)
}

func (c *Conn) ping(f frame, p []byte) error {
	if f.stream != 0 {
		return protocol("PING on a stream")
	}
	if len(p) != 8 {
		return &fault{codeFrameSize, "PING of a wrong size"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.has(flagEndStream) {
		return c.spend(stray)
	}
	if err := c.spend(pings); err != nil {
		return err
	}
	o := c.frame(framePing, flagEndStream, 0, 8)
	o.b = append(o.b, p...)
	return c.answered()
}

func (c *Conn) windowUpdate(f frame, p []byte) error {
	if len(p) != 4 {
		return &fault{codeFrameSize, "WINDOW_UPDATE of a wrong size"}
	}
	n := int64(binary.BigEndian.Uint32(p) & maxStream)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.spend(updates); err != nil {
		return err
	}
	if f.stream == 0 {
		return c.moreForAll(n)
	}
	if f.stream > c.last {
		return protocol("WINDOW_UPDATE on an idle stream")
	}
	s := c.streams[f.stream]
	switch {
	case s == nil:
		return nil
	case n == 0:
		return c.cut(s, codeProtocol, "WINDOW_UPDATE of 0")
	case s.send+n > maxWindow:
		return c.cut(s, codeFlow, "stream's window is too large")
	}
	s.send += n
	s.writable.Broadcast()
	c.reopened()
	return nil
}

// moreForAll opens the connection's window by n. mu is held.
func (c *Conn) moreForAll(n int64) error {
	if n == 0 {
		return protocol("WINDOW_UPDATE of 0")
	}
	if c.send+n > maxWindow {
		return &fault{codeFlow, "connection's window is too large"}
	}
	if c.send <= 0 {
		defer c.wakeWriters()
	}
	c.send += n
	c.reopened()
	return nil
}

// wakeWriters lets all streams look whether they may send. mu is held.
func (c *Conn) wakeWriters() {
	for _, s := range c.streams {
		s.writable.Broadcast()
	}
}

func (c *Conn) priority(f frame, p []byte) error {
	if f.stream == 0 {
		return protocol("PRIORITY without a stream")
	}
	if len(p) != 5 {
		return &fault{codeFrameSize, "PRIORITY of a wrong size"}
	}
	if binary.BigEndian.Uint32(p)&maxStream == f.stream {
		return protocol("stream depends on itself")
	}
	return c.take(other)
}

func (c *Conn) clientLeaves(f frame, p []byte) error {
	if f.stream != 0 {
		return protocol("GOAWAY on a stream")
	}
	if len(p) < 8 {
		return &fault{codeFrameSize, "GOAWAY of a wrong size"}
	}
	return c.take(other)
}
