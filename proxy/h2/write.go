package h2

import (
	"encoding/binary"
	"runtime"
	"sync"
)

// buffer holds what was read, or what is to be written.
type buffer struct{ b []byte }

const (
	inSize  = 32 << 10
	outSize = 64 << 10
	// highWater is how much may wait to be written before streams have to wait:
	// a whole frame fits in besides.
	highWater = outSize - frameHead - maxFrame - 4<<10
)

var (
	ins  = buffers{size: inSize}
	outs = buffers{size: outSize}
)

// buffers is a pool of those of one size.
type buffers struct {
	pool sync.Pool
	size int
}

func (p *buffers) take() *buffer {
	if b, ok := p.pool.Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, p.size)}
}

// free gives b back, unless it grew, and returns nil.
func (b *buffer) free() *buffer {
	if b == nil {
		return nil
	}
	b.b = b.b[:cap(b.b)]
	switch len(b.b) {
	case inSize:
		ins.pool.Put(b)
	case outSize:
		outs.pool.Put(b)
	}
	return nil
}

// frame appends the head of a frame whose payload of n bytes follows. mu is held.
func (c *Conn) frame(kind, flags uint8, stream uint32, n int) *buffer {
	if c.out == nil {
		c.out = outs.take()
		c.out.b = c.out.b[:0]
	}
	c.out.b = append(c.out.b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	c.out.b = binary.BigEndian.AppendUint32(c.out.b, stream)
	return c.out
}

// number appends a frame that holds a number. mu is held.
func (c *Conn) number(kind uint8, stream, v uint32) {
	o := c.frame(kind, 0, stream, 4)
	o.b = binary.BigEndian.AppendUint32(o.b, v)
}

// grant appends a WINDOW_UPDATE. mu is held.
func (c *Conn) grant(stream uint32, n int) { c.number(frameWindow, stream, uint32(n)) }

// goAway appends a GOAWAY. mu is held.
func (c *Conn) goAway(last, code uint32, why string) {
	o := c.frame(frameGoAway, 0, 0, 8+len(why))
	o.b = binary.BigEndian.AppendUint32(o.b, last)
	o.b = binary.BigEndian.AppendUint32(o.b, code)
	o.b = append(o.b, why...)
}

// appendHead appends a block as HEADERS and as many CONTINUATIONs as it takes, and
// returns where the flags of the HEADERS are. mu is held.
func (c *Conn) appendHead(stream uint32, flags uint8, block []byte) (at int) {
	kind := frameHeaders
	at = -1
	for {
		n := min(len(block), c.peer.maxFrame)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		o := c.frame(kind, flags, stream, n)
		if at < 0 {
			at = len(o.b) - 5
		}
		o.b = append(o.b, block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return at
		}
		kind, flags = frameContinuation, 0
	}
}

// How a flush may be made.
type haste uint8

const (
	shared haste = iota // by a handler, which has other work to do than to write for all
	alone               // by one who has nothing else to do
)

// flush writes what was appended, unless somebody is at it, who then will. mu is
// held, but not while writing. A handler that is not the only one lets others
// come first: what they append goes out in the same write.
func (c *Conn) flush(h haste) {
	if c.writing || c.out == nil || len(c.out.b) == 0 {
		return
	}
	c.writing = true
	c.wrote = c.cfg.sweep.now.Load()
	if h == shared && c.handlers > 1 {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	for round := 0; c.out != nil && len(c.out.b) > 0; round++ {
		if h == shared && round == 4 {
			c.cfg.crew.Run(job{conn: c})
			break
		}
		if !c.writeOut() {
			break
		}
	}
	c.writing = false
	if c.handlers == 0 {
		c.idle.Broadcast()
	}
}

// writeOut makes one write of all there is; whether it succeeded.
func (c *Conn) writeOut() bool {
	o := c.out
	c.out, c.control = nil, 0
	c.epoch++
	c.wrote = c.cfg.sweep.now.Load()
	c.room.Broadcast()
	c.mu.Unlock()
	_, err := c.net.Write(o.b)
	o.free()
	c.mu.Lock()
	if err == nil {
		return true
	}
	c.out = c.out.free()
	c.fail(err)
	c.wake()
	return false
}

// flushSoon has what was appended written by another goroutine: reading must not
// wait for writing. mu is held.
func (c *Conn) flushSoon() {
	if !c.writing && c.serving {
		c.cfg.crew.Run(job{conn: c})
	}
}

// full says that enough waits to be written. mu is held.
func (c *Conn) full() bool { return c.out != nil && len(c.out.b) >= highWater }
