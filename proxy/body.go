package proxy

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"trivet/proxy/wire"
)

// body is a request's body on an HTTP/1.1 connection.
type body struct {
	turn    *turn
	left    int64 // of a known length
	chunked bool
	chunks  wire.Chunks
	err     error
	pace    pace

	// Of these the answer, in another goroutine perhaps, wants to know.
	short   atomic.Bool // what is left is short enough to be skipped
	expect  atomic.Bool // 100 Continue is awaited
	done    atomic.Bool
	stopped atomic.Bool // the answer has ended: nobody may read any more
	reading atomic.Bool
}

func (b *body) begin(r *wire.Request) {
	b.done.Store(r.Length == 0)
	if r.Length == 0 {
		return
	}
	b.left, b.chunked, b.err = max(r.Length, 0), r.Length < 0, nil
	b.short.Store(b.left <= skipBytes)
	b.expect.Store(r.Expect)
	b.stopped.Store(false)
	b.pace = pace{}
	if b.chunked {
		b.chunks.Reset()
	}
}

func (b *body) trailer() []wire.Field {
	if !b.chunked || !b.done.Load() {
		return nil
	}
	return b.chunks.Trailer()
}

var errAnswered = errors.New("request has been answered")

// read gives a part of the body.
func (b *body) read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.done.Load() {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	b.reading.Store(true)
	defer b.reading.Store(false)
	n, err := b.next(p)
	if err != nil && err != io.EOF {
		b.err = b.blame(err)
		b.short.Store(b.err == errAnswered && b.short.Load())
		err = b.err
	}
	return n, err
}

// blame says whose fault err is.
func (b *body) blame(err error) error {
	switch {
	case b.stopped.Load():
		return errAnswered
	case timedOut(err):
		return ErrClientSlow
	}
	return fmt.Errorf("%w: %w", ErrClientBody, err)
}

func (b *body) next(p []byte) (int, error) {
	for {
		n, err := b.buffered(p)
		if n > 0 || err != nil {
			return n, err
		}
		if !b.chunked && int64(len(p)) >= int64(blockBytes[smallBlock])/2 {
			n, err := b.direct(p[:min(int64(len(p)), b.left)])
			b.took(n)
			if b.done.Load() || err == nil {
				return n, b.end()
			}
			return n, err // too slow, if anything came at all
		}
		if err := b.fill(); err != nil {
			return 0, err
		}
	}
}

// end is io.EOF once all was read.
func (b *body) end() error {
	if b.done.Load() {
		return io.EOF
	}
	return nil
}

func (b *body) took(n int) {
	b.left -= int64(n)
	if b.left <= skipBytes && !b.short.Load() {
		b.short.Store(true)
	}
	if b.left == 0 && !b.chunked {
		b.done.Store(true)
	}
}

// buffered gives what has come already.
func (b *body) buffered(p []byte) (int, error) {
	t := b.turn
	if !b.chunked {
		n := copy(p[:min(int64(len(p)), b.left)], t.in.b[t.r:t.w])
		t.r += n
		b.took(n)
		return n, b.end()
	}
	total := 0
	for total < len(p) && t.r < t.w {
		data, n, err := b.chunks.Next(t.in.b[t.r:min(t.w, t.r+len(p)-total)])
		t.r += n
		if err != nil {
			return total, err
		}
		total += copy(p[total:], data)
		if b.chunks.Done() {
			b.done.Store(true)
			return total, io.EOF
		}
	}
	return total, nil
}

// direct reads into p without a detour.
func (b *body) direct(p []byte) (int, error) {
	if err := b.goOn(); err != nil {
		return 0, err
	}
	rules := b.turn.c.server.rules.Load()
	if b.stopped.Load() {
		return 0, errAnswered
	}
	b.turn.c.guardRead(b.pace.limit(rules.times, 0))
	if b.stopped.Load() { // the guard may have taken the interruption back
		return 0, errAnswered
	}
	began := b.turn.c.server.clock.Load()
	n, err := b.turn.read(p)
	if n > 0 {
		if !b.pace.moved(b.turn.c.server.clock.Load()-began, n, rules.times.Rate) {
			return n, ErrClientSlow
		}
		return n, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return 0, err
}

// fill reads into the turn's buffer, which is empty.
func (b *body) fill() error {
	t := b.turn
	const least = 2 << 10
	t.r, t.w = t.room, t.room
	if len(t.in.b)-t.room < least && t.heads == nil {
		t.heads = t.in
		t.in = takeBlock(middleBlock)
		t.r, t.w, t.room = 0, 0, 0
	}
	n, err := b.direct(t.in.b[t.w:])
	t.w += n
	return err
}

// goOn tells a client that awaits it to send the body. Once the answer has
// begun, nothing is said any more, and so the client goes on waiting.
func (b *body) goOn() error {
	if !b.expect.Load() {
		return nil
	}
	return b.turn.answer.interim(100, nil)
}

// stop ends a read that is under way in another goroutine, and all further ones.
func (b *body) stop() {
	if b.done.Load() {
		return
	}
	b.stopped.Store(true)
	if b.reading.Load() {
		b.turn.c.stopReading()
	}
}

// skipBytes is how much of a body that nobody wanted is read so that the connection can go on.
const skipBytes = 256 << 10

// skippable says whether the rest of the body is short enough to be read.
func (b *body) skippable() bool {
	return b.done.Load() || b.short.Load() && !b.expect.Load()
}

// skip reads what is left of the body; false: the connection cannot go on.
func (b *body) skip() bool {
	if b.done.Load() {
		return true
	}
	if !b.skippable() {
		return false
	}
	b.stopped.Store(false)
	b.err = nil
	waste := takeBlock(middleBlock)
	defer waste.give()
	for total := 0; total <= skipBytes; {
		n, err := b.read(waste.b)
		total += n
		if err != nil {
			return err == io.EOF
		}
	}
	return false
}
