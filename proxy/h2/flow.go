package h2

import "sync"

const (
	maxWindow     = 1<<31 - 1
	defaultWindow = 65535   // what RFC 9113, 6.9.2 begins with
	firstWindow   = 1 << 17 // of a stream's body, before it was seen that it is read
)

// connWindow is the connection's window, for all streams of one of n each.
func connWindow(n int) int { return 2 * n }

// window is how much the client may send: on a stream, or on all together.
type window struct {
	size  int // to be reached again as what came is consumed
	avail int // of which the client knows
	owed  int // consumed, but not yet granted again
	total int // consumed since size last grew
}

// consume counts n bytes as consumed and says how many to grant: none, until
// half of the window is owed. A window whose bytes keep being consumed doubles
// up to limit, so that a fast upload is not held to a window for each round trip.
func (w *window) consume(n, limit int) (grant int) {
	w.owed += n
	w.total += n
	if w.owed < w.size/2 {
		return 0
	}
	if w.total >= 2*w.size && w.size < limit {
		grow := min(w.size, limit-w.size)
		w.size, w.total = w.size+grow, 0
		w.owed += grow
	}
	grant = w.owed
	w.avail += grant
	w.owed = 0
	return grant
}

// consumed opens the connection's window by n, sooner or later. mu is held.
func (c *Conn) consumed(n int) {
	if g := c.recv.consume(n, connWindow(c.cfg.Window)); g > 0 {
		c.grant(0, g)
		c.flushSoon()
	}
}

// reading counts n bytes of s as read by its handler; whether something is to be
// flushed. mu is held.
func (c *Conn) reading(s *Stream, n int) (flush bool) {
	if g := c.recv.consume(n, connWindow(c.cfg.Window)); g > 0 {
		c.grant(0, g)
		flush = true
	}
	if s.ended || s.gone {
		return flush
	}
	if g := s.recv.consume(n, c.cfg.Window); g > 0 {
		c.grant(s.id, g)
		flush = true
	}
	return flush
}

// body is the part of a request's body that was received and is not read yet.
type body struct {
	first, last *chunk
	n           int
}

type chunk struct {
	next *chunk
	r, w int
	b    [4096 - 24]byte
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// put copies p to the end.
func (b *body) put(p []byte) {
	b.n += len(p)
	for len(p) > 0 {
		if b.last == nil || b.last.w == len(b.last.b) {
			b.grow()
		}
		n := copy(b.last.b[b.last.w:], p)
		b.last.w += n
		p = p[n:]
	}
}

func (b *body) grow() {
	k := chunks.Get().(*chunk)
	k.next, k.r, k.w = nil, 0, 0
	if b.last == nil {
		b.first = k
	} else {
		b.last.next = k
	}
	b.last = k
}

// take moves bytes from the beginning to p.
func (b *body) take(p []byte) (n int) {
	for b.first != nil && n < len(p) {
		k := b.first
		m := copy(p[n:], k.b[k.r:k.w])
		n += m
		if k.r += m; k.r == k.w {
			b.drop()
		}
	}
	b.n -= n
	return n
}

// drop gives back the first chunk.
func (b *body) drop() {
	k := b.first
	if b.first = k.next; b.first == nil {
		b.last = nil
	}
	chunks.Put(k)
}

// clear drops everything and says how much that was.
func (b *body) clear() (n int) {
	n = b.n
	for b.first != nil {
		b.drop()
	}
	b.n = 0
	return n
}
