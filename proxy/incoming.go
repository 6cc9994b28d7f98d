package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"trivet/proxy/tunnel"
	"trivet/proxy/upstream"
	"trivet/proxy/wire"
)

// An answer to a safe request is held back until it is whole, if it is at
// most holdSize and, where its length is unknown, comes within holdTime.
const (
	holdSize = 64 << 10
	holdTime = 20 * time.Millisecond
)

// incoming is a target's answer.
type incoming struct {
	journey  *journey
	response wire.Response
	chunks   wire.Chunks
	left     int64 // of a body of known length
	done     bool  // the body has ended
	excess   bool  // more came than the answer

	in    *block
	r, w  int          // in.b[r:w] came after the head
	ahead *block       // the body, where in has no room for it
	data  []byte       // of the body, read ahead: in in or in ahead
	held  *tunnel.Hold // what follows it, in the kernel
}

// give returns the buffers.
func (a *incoming) give() {
	a.in.give()
	a.ahead.give()
	a.held.Give()
	a.in, a.ahead, a.data, a.held, a.r, a.w = nil, nil, nil, nil, 0, 0
}

func (a *incoming) bad() bool {
	return a.response.Status >= 502 && a.response.Status <= 504
}

// whole says that all of the answer was read.
func (a *incoming) whole() bool { return a.done }

// reusable says whether the connection can carry another exchange.
func (a *incoming) reusable() bool {
	return a.done && !a.excess && !a.response.Close && !a.mayFollow()
}

// mayFollow says that the target may yet send a body that by rule is none: of
// HEAD, 204 or 304. The next visitor would get it as the answer. A target by TLS
// is a server of our own, which knows better.
func (a *incoming) mayFollow() bool {
	return a.response.Declared != 0 && !a.hasBody() && a.journey.conn.Plain()
}

// receive reads the head, and as much of the body as is held back. On error
// the answer must not be used.
func (a *incoming) receive() error {
	j := a.journey
	a.give()
	a.in = takeBlock(smallBlock)
	for {
		if err := a.readHead(); err != nil {
			return err
		}
		if a.response.Status >= 200 || a.response.Status == 101 {
			break
		}
		a.interim()
	}
	j.outgoing.headCame()
	now := upstream.Now()
	j.exchange.Times.Head = time.Duration(now - j.clock)
	if err := a.checkSwitch(); err != nil {
		return err
	}
	if err := a.holdBack(); err != nil {
		return fmt.Errorf("read answer: %w", unexpected(err))
	}
	return j.conn.Came(now)
}

// checkSwitch refuses a switch that was not asked for, and to a CONNECT of
// HTTP/2 or 3, where 200 means that there is a tunnel, any success without one.
func (a *incoming) checkSwitch() error {
	switch status := a.response.Status; {
	case status == 101 && a.journey.switching() == nil:
		return ErrUpgrade
	case status >= 200 && status < 300 && len(a.journey.exchange.Request.Protocol) > 0:
		return ErrUpgrade
	}
	return nil
}

// readHead reads until a head is there, and parses it.
func (a *incoming) readHead() error {
	seen := 0
	for {
		if a.r < a.w {
			end, err := wire.HeadEnd(a.in.b[a.r:a.w], seen)
			if err != nil {
				return err
			}
			if end > 0 {
				head := a.in.b[a.r : a.r+end]
				a.r += end
				return a.parse(head)
			}
			seen = a.w - a.r
		}
		if err := a.more(); err != nil {
			return err
		}
	}
}

var errHead = errors.New("target's answer has too long a head")

// more reads more of a head.
func (a *incoming) more() error {
	if a.w == len(a.in.b) {
		if a.in.size == largeBlock {
			return errHead
		}
		larger := takeBlock(a.in.size + 1)
		a.w = copy(larger.b, a.in.b[a.r:a.w])
		a.r = 0
		a.in.give()
		a.in = larger
	}
	runtime.Gosched() // as in turn.fill
	n, err := a.journey.conn.Read(a.in.b[a.w:])
	a.w += n
	if n > 0 {
		return nil
	}
	return unexpected(err)
}

var answerLimits = wire.Limits{}

func (a *incoming) parse(head []byte) error {
	r := a.journey.exchange.Request
	method := r.Method
	if len(r.Protocol) > 0 {
		method = getMethod
	}
	if err := a.response.Parse(head, method, &answerLimits); err != nil {
		return err
	}
	a.left, a.done, a.excess = a.response.Length, a.response.Length == 0, false
	if a.left == -1 {
		a.chunks.Reset()
	}
	return nil
}

// interim passes an answer before the answer on, to clients that may know it.
func (a *incoming) interim() {
	if a.response.Status != 100 {
		_ = a.journey.exchange.Stream.Head(a.response.Status, a.response.Fields, 0)
	}
}

// holdBack decodes what came with the head, and reads the rest if the answer is to be held back.
func (a *incoming) holdBack() error {
	if a.response.Status == 101 {
		return nil
	}
	raw := a.in.b[a.r:a.w]
	a.r = a.w
	n, err := a.decode(raw)
	a.data = raw[:n:n]
	switch {
	case err != nil || a.done:
		return err
	case !a.journey.safe || streams(&a.response) || tight():
		return nil
	case a.response.Length > holdSize:
		return nil
	case a.response.Length > 0:
		return a.holdKnown()
	}
	return a.holdUnknown()
}

var eventStream = []byte("text/event-stream")

// streams says that the answer is meant to come in pieces.
func streams(r *wire.Response) bool {
	return bytes.HasPrefix(wire.Find(r.Fields, wire.ContentType), eventStream)
}

// decode takes the framing out of b, in place, and says how much data is left of it.
func (a *incoming) decode(b []byte) (n int, err error) {
	switch {
	case a.done:
		a.excess = a.excess || len(b) > 0
		return 0, nil
	case a.response.Length == -1:
		return a.decodeChunks(b)
	case a.response.Length == wire.UntilClose:
		return len(b), nil
	}
	n = int(min(int64(len(b)), a.left))
	a.left -= int64(n)
	a.done = a.left == 0
	a.excess = n < len(b)
	return n, nil
}

func (a *incoming) decodeChunks(b []byte) (n int, err error) {
	rest := b
	for len(rest) > 0 {
		data, used, err := a.chunks.Next(rest)
		n += copy(b[n:], data)
		if err != nil {
			return n, err
		}
		rest = rest[used:]
		if a.chunks.Done() {
			a.done, a.excess = true, len(rest) > 0
			break
		}
	}
	return n, nil
}

// read reads a part of the body into b and takes its framing out. Once it is
// io.EOF, the body is done.
func (a *incoming) read(b []byte) (n int, err error) {
	for {
		n, err = a.journey.conn.Read(b)
		if err == io.EOF && n == 0 {
			if a.response.Length != wire.UntilClose {
				return 0, io.ErrUnexpectedEOF
			}
			a.done = true
			return 0, io.EOF
		}
		if n > 0 {
			err = nil
		}
		if err != nil {
			return 0, err
		}
		n, err = a.decode(b[:n])
		if n > 0 || err != nil {
			return n, err
		}
		if a.done {
			return 0, io.EOF
		}
	}
}

// roomFor makes sure that data can grow to n bytes without moving again.
func (a *incoming) roomFor(n int) {
	if cap(a.data) >= n {
		return
	}
	// The room in in is what is behind data, for raw was its last part.
	b := blockFor(n)
	a.data = append(b.b[:0], a.data...)
	a.ahead.give()
	a.ahead = b
}

// holdKnown reads the whole body.
func (a *incoming) holdKnown() error {
	if done, err := a.holdInKernel(); done || err != nil {
		return err
	}
	a.roomFor(int(a.response.Length))
	for !a.done {
		have := len(a.data)
		n, err := a.read(a.data[have : have+int(a.left)])
		a.data = a.data[:have+n]
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// holdInKernel takes the whole rest without copying it, if it can be sent so,
// too. If there is no room for all of it, what came is in a.data.
func (a *incoming) holdInKernel() (done bool, err error) {
	s, raw := a.splicer()
	if s == nil || a.left > tunnel.HoldLimit {
		return false, nil
	}
	if a.held = tunnel.TakeHold(); a.held == nil {
		return false, nil
	}
	n, err := a.held.Fill(raw, int(a.left))
	a.left -= int64(n)
	a.done = a.left == 0
	if err == tunnel.ErrHoldFull {
		return false, a.spillBack()
	}
	return a.done, err
}

// spillBack reads what the kernel holds.
func (a *incoming) spillBack() error {
	a.roomFor(int(a.response.Length))
	for a.held.Len() > 0 {
		have := len(a.data)
		n, err := a.held.Read(a.data[have:cap(a.data)])
		if err != nil {
			return err
		}
		a.data = a.data[:have+n]
	}
	a.held.Give()
	a.held = nil
	return nil
}

// holdUnknown reads until the end, the size or the time, whichever is first.
func (a *incoming) holdUnknown() error {
	conn := a.journey.conn
	_ = conn.SetReadDeadline(time.Now().Add(holdTime))
	err := conn.Cause()
	for err == nil && !a.done && len(a.data) < holdSize {
		a.roomFor(min(max(2*len(a.data), blockBytes[middleBlock]), blockBytes[largeBlock]))
		have := len(a.data)
		var n int
		n, err = a.read(a.data[have:cap(a.data)])
		a.data = a.data[:have+n]
	}
	if err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	_ = conn.SetReadDeadline(time.Time{})
	if cause := conn.Cause(); cause != nil {
		return cause
	}
	return err
}

// sendWhole sends an answer that was read whole.
func (a *incoming) sendWhole() {
	x := a.journey.exchange
	trailer := a.trailer()
	length := int64(len(a.data))
	if a.held != nil {
		length += int64(a.held.Len())
	}
	switch {
	case a.response.Length == 0:
		length = a.response.Declared // of what HEAD and 304 do not send
		if length < 0 && a.hasBody() {
			length = 0
		}
	case len(trailer) > 0:
		length = -1
	}
	if x.Start(a.response.Status, a.response.Fields, length) != nil {
		return
	}
	if _, err := x.Write(a.data); err != nil || a.spill() != nil {
		return
	}
	_ = x.End(trailer)
}

// spill sends what the kernel holds.
func (a *incoming) spill() error {
	if a.held == nil {
		return nil
	}
	x := a.journey.exchange
	n, err := x.Stream.(splicer).Spill(a.held)
	x.Sent += int64(n)
	return x.note(err)
}

// hasBody says that the answer is of a kind that has a body, though it may be empty.
func (a *incoming) hasBody() bool {
	return a.response.Status != 304 && a.response.Status != 204 && string(a.journey.exchange.Request.Method) != "HEAD"
}

func (a *incoming) trailer() []wire.Field {
	if a.response.Length != -1 {
		return nil
	}
	return a.chunks.Trailer()
}
