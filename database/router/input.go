package router

import (
	"net"
	"sync"

	"trivet/database/router/wire"
)

const (
	requestChunk = 64 << 10 // of a request that is held in memory at a time
	answerChunk  = 32 << 10
)

var (
	requestChunks = sync.Pool{New: func() any { return new([requestChunk]byte) }}
	answerChunks  = sync.Pool{New: func() any { return new([answerChunk]byte) }}
)

// input is what a client sends. An idle one costs a small buffer only.
type input struct {
	own  [small]byte
	big  *[requestChunk]byte // while a longer request is under way
	b    []byte              // one of them
	r, w int                 // what has been read and not been used
	q    request
}

// request is what a client asks, or as much of it as fits into a buffer.
type request struct {
	command  wire.Command
	sequence byte
	first    []byte // header and payload, as it came
	rest     int    // of this packet, still to be read
	more     bool   // another packet continues this one
}

// whole reports whether nothing of the request is still to be read.
func (q *request) whole() bool { return q.rest == 0 && !q.more }

// payload is what there is of it, from the command on.
func (q *request) payload() []byte { return q.first[wire.HeaderSize:] }

// next reads a request: all of it, or what fits.
func (in *input) next(c net.Conn) (*request, error) {
	if in.b == nil {
		in.b = in.own[:]
	}
	if err := in.fill(c, wire.HeaderSize+1); err != nil {
		return nil, err
	}
	n, sequence := wire.Header(in.b[in.r:])
	if n == 0 {
		return nil, wire.ErrMalformed
	}
	total := wire.HeaderSize + n
	if total > len(in.b) {
		in.grow()
	}
	here := min(total, len(in.b))
	if err := in.fill(c, here); err != nil {
		return nil, err
	}
	in.q = request{
		command: wire.Command(in.b[in.r+wire.HeaderSize]), sequence: sequence, first: in.b[in.r : in.r+here],
		rest: total - here, more: n == wire.MaxPayload,
	}
	in.r += here
	return &in.q, nil
}

// fill reads until n bytes are there.
func (in *input) fill(c net.Conn, n int) error {
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
	if in.r+n > len(in.b) {
		in.w = copy(in.b, in.b[in.r:in.w])
		in.r = 0
	}
	for in.w-in.r < n {
		got, err := c.Read(in.b[in.w:])
		in.w += got
		if err != nil && in.w-in.r < n {
			return err
		}
	}
	return nil
}

// grow goes on with a big buffer.
func (in *input) grow() {
	if in.big != nil {
		return
	}
	in.big = requestChunks.Get().(*[requestChunk]byte)
	in.w = copy(in.big[:], in.b[in.r:in.w])
	in.r, in.b = 0, in.big[:]
}

// done ends the use of q, and gives a big buffer back once it is empty.
func (in *input) done(q *request) {
	q.first = nil
	if in.big != nil && in.r == in.w {
		requestChunks.Put(in.big)
		in.big, in.b, in.r, in.w = nil, in.own[:], 0, 0
	}
}

// free gives back what is still held.
func (in *input) free() {
	if in.big != nil {
		requestChunks.Put(in.big)
		in.big, in.b = nil, nil
	}
}

// each reads what is left of q, in pieces that are good until the next one;
// headers of further packets included, and payload says how much of a piece is
// none of those.
func (in *input) each(c net.Conn, q *request, piece func(b []byte, payload bool) error) error {
	for !q.whole() {
		if q.rest == 0 {
			if err := in.continuation(c, q, piece); err != nil {
				return err
			}
			continue
		}
		if err := in.fill(c, 1); err != nil {
			return err
		}
		n := min(q.rest, in.w-in.r)
		b := in.b[in.r : in.r+n]
		in.r += n
		q.rest -= n
		if err := piece(b, true); err != nil {
			return err
		}
	}
	return nil
}

func (in *input) continuation(c net.Conn, q *request, piece func([]byte, bool) error) error {
	if err := in.fill(c, wire.HeaderSize); err != nil {
		return err
	}
	head := in.b[in.r : in.r+wire.HeaderSize]
	in.r += wire.HeaderSize
	q.rest, q.sequence = wire.Header(head)
	q.more = q.rest == wire.MaxPayload
	return piece(head, false)
}

// skip reads what is left of q and forgets it.
func (in *input) skip(c net.Conn, q *request) error {
	return in.each(c, q, func([]byte, bool) error { return nil })
}
