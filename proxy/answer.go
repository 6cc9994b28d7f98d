package proxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"trivet/proxy/wire"
)

// answer is an answer on an HTTP/1.1 connection. What is small is held back,
// so that head, body and end go out in one write.
type answer struct {
	turn    *turn
	request *wire.Request
	framing framing
	left    int64 // of a body of known length
	close   bool  // the connection ends with this answer
	began   bool
	ended   bool
	err     error // why the client could not be written to
	mu      sync.Mutex
	pace    pace

	hold *block
	buf  []byte // held back; it begins in hold
	vec  [3][]byte
	bufs net.Buffers
}

// framing is how the client knows where the body ends.
type framing uint8

const (
	frameNone framing = iota // there is none
	frameKnown
	frameChunked
	frameClose
)

func (a *answer) begin(r *wire.Request) {
	a.request, a.framing, a.left, a.close = r, frameNone, 0, r.Close
	a.began, a.ended, a.err, a.pace = false, false, nil, pace{}
	if a.hold == nil {
		a.hold = takeBlock(smallBlock)
	}
	a.buf = a.hold.b[:0]
}

func (a *answer) give() {
	a.hold.give()
	a.hold, a.buf, a.request = nil, nil, nil
}

var (
	errTwice   = errors.New("answer was begun twice")
	errLength  = errors.New("answer's body is not as long as was said")
	errAborted = errors.New("answer was broken off")
)

// head begins the answer, or sends an interim one.
func (a *answer) head(status int, fields []wire.Field, length int64) error {
	if status < 200 && status != 101 {
		return a.interim(status, fields)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.began {
		return errTwice
	}
	a.began = true
	if a.err != nil {
		return a.err
	}
	a.frame(status, length)
	b := wire.AppendStatusLine(a.buf, status)
	b = a.appendFraming(b, status, length, fields)
	for i := range fields {
		if f := &fields[i]; !f.Kind.Framing() {
			b = wire.AppendField(b, f.Name, f.Value)
		}
	}
	a.buf = wire.AppendEnd(b)
	return nil
}

// frame settles how the body is framed and whether the connection goes on.
func (a *answer) frame(status int, length int64) {
	a.close = a.close || a.turn.c.server.draining.Load() || !a.turn.body.skippable()
	switch {
	case status == 101 || status == 204 || status == 304 || string(a.request.Method) == "HEAD":
		a.framing = frameNone
	case length >= 0:
		a.framing, a.left = frameKnown, length
	case a.request.Minor == 0:
		a.framing, a.close = frameClose, true
	default:
		a.framing = frameChunked
	}
}

var (
	connectionClose = []byte("Connection: close\r\n")
	connectionKeep  = []byte("Connection: keep-alive\r\n")
	connectionUp    = []byte("Connection: Upgrade\r\n")
)

func (a *answer) appendFraming(b []byte, status int, length int64, fields []wire.Field) []byte {
	switch {
	case status == 101:
		b = append(b, connectionUp...)
		if up := wire.Find(fields, wire.Upgrade); up != nil {
			b = wire.AppendField(b, []byte("Upgrade"), up)
		}
		return b
	case a.close:
		b = append(b, connectionClose...)
	case a.request.Minor == 0:
		b = append(b, connectionKeep...)
	}
	switch {
	case a.framing == frameChunked:
		b = wire.AppendChunked(b)
	case length >= 0 && status != 204:
		b = wire.AppendLength(b, length)
	}
	return b
}

// interim sends an answer before the answer, to a client that knows of them.
func (a *answer) interim(status int, fields []wire.Field) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.began || a.err != nil || a.request.Minor == 0 {
		return a.err
	}
	if status == 100 {
		a.turn.body.expect.Store(false) // under mu, for frame must see either both or none
	}
	b := wire.AppendStatusLine(a.buf, status)
	for i := range fields {
		if f := &fields[i]; !f.Kind.Framing() {
			b = wire.AppendField(b, f.Name, f.Value)
		}
	}
	a.buf = wire.AppendEnd(b)
	return a.flush()
}

// write sends p or holds it back.
func (a *answer) write(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	switch a.framing {
	case frameNone:
		return len(p), nil
	case frameKnown:
		if int64(len(p)) > a.left {
			a.err = errLength
			return 0, a.err
		}
		a.left -= int64(len(p))
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := a.take(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// chunkRoom is what the framing of a chunk takes at most, the last one's with it.
const chunkRoom = 32

func (a *answer) take(p []byte) error {
	if a.turn.c.state != nil {
		return a.takeSecure(p)
	}
	chunked := a.framing == frameChunked
	fits := len(a.buf)+len(p)+chunkRoom <= cap(a.buf)
	if chunked {
		a.buf = wire.AppendChunkHead(a.buf, len(p))
	}
	if fits {
		a.buf = append(a.buf, p...)
		if chunked {
			a.buf = append(a.buf, crlf...)
		}
		return nil
	}
	a.vec[0], a.vec[1] = a.buf, p
	a.bufs = a.vec[:2]
	size := len(a.buf) + len(p)
	if chunked {
		a.vec[2] = crlf
		a.bufs = a.vec[:3]
		size += len(crlf)
	}
	a.buf = a.buf[:0]
	return a.sendAll(size)
}

var crlf = []byte("\r\n")

// takeSecure gathers what is to be encrypted in pieces of one TLS record.
func (a *answer) takeSecure(p []byte) error {
	chunked := a.framing == frameChunked
	if chunked {
		a.buf = wire.AppendChunkHead(a.buf, len(p))
	}
	for len(p) > 0 {
		if len(a.buf)+len(p)+chunkRoom > cap(a.buf) && a.hold.size == smallBlock {
			larger := takeBlock(middleBlock)
			a.buf = append(larger.b[:0], a.buf...)
			a.hold.give()
			a.hold = larger
		}
		n := min(len(p), max(cap(a.buf)-len(a.buf)-chunkRoom, 0))
		a.buf = append(a.buf, p[:n]...)
		if p = p[n:]; len(p) == 0 {
			break
		}
		if err := a.flush(); err != nil {
			return err
		}
	}
	if chunked {
		a.buf = append(a.buf, crlf...)
	}
	return nil
}

// flush sends what is held back.
func (a *answer) flush() error {
	if a.err != nil || len(a.buf) == 0 {
		return a.err
	}
	before := a.guard(len(a.buf))
	n, err := a.turn.write(a.buf)
	a.buf = a.buf[:0]
	return a.sent(before, n, err)
}

// sendAll sends bufs.
func (a *answer) sendAll(size int) error {
	before := a.guard(size)
	n, err := a.bufs.WriteTo(a.turn.c.net)
	a.vec = [3][]byte{}
	return a.sent(before, int(n), err)
}

func (a *answer) guard(size int) (before int64) {
	c := a.turn.c
	c.guardWrite(a.pace.limit(c.server.rules.Load().times, size))
	return c.server.clock.Load()
}

func (a *answer) sent(before int64, n int, err error) error {
	s := a.turn.c.server
	switch {
	case err != nil:
		a.err = err
	case !a.pace.moved(s.clock.Load()-before, n, s.rules.Load().times.Rate):
		a.err = errSlowReader
	}
	if a.err != nil {
		a.turn.c.guardWrite(0)
	}
	return a.err
}

var errSlowReader = errors.New("client takes its answer too slowly")

// end ends the answer.
func (a *answer) end(trailer []wire.Field) error {
	if a.ended {
		return a.err
	}
	a.ended = true
	a.turn.body.stop()
	if a.err == nil && a.framing == frameKnown && a.left > 0 {
		a.err = errLength
	}
	if a.err != nil {
		return a.err
	}
	if a.framing == frameChunked {
		if len(trailer) == 0 {
			a.buf = append(a.buf, wire.LastChunk...)
		} else {
			a.buf = wire.AppendTrailer(a.buf, trailer)
		}
	}
	return a.flush()
}

// abort closes the connection without an end of the answer.
func (a *answer) abort() {
	if a.ended {
		return
	}
	a.ended = true
	if a.err == nil {
		a.err = errAborted
	}
	a.turn.body.stop()
	if a.framing == frameClose || a.framing == frameChunked || a.framing == frameKnown {
		if t, ok := rawConn(a.turn.c.net).(*net.TCPConn); ok {
			_ = t.SetLinger(0) // an orderly end would look like the end of the answer
		}
	}
}

// SendFile sends a part of a file by sendfile(2), or reads it where it is
// short, or has to be encrypted.
func (t *turn) SendFile(f *os.File, offset, n int64) (int64, error) {
	a := &t.answer
	tcp, ok := t.c.net.(*net.TCPConn)
	if !ok || n <= int64(blockBytes[middleBlock]) || a.framing != frameKnown {
		return a.copyFile(f, offset, n)
	}
	if n > a.left {
		a.err = errLength
		return 0, a.err
	}
	if err := a.flush(); err != nil {
		return 0, err
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, err
	}
	a.left -= n
	for left := n; left > 0; {
		k, err := a.sendPiece(raw, f, offset, min(left, sendfileBytes))
		offset, left = offset+k, left-k
		if err != nil {
			return n - left, err
		}
	}
	return n, nil
}

// sendfileBytes is sent at a time, so that a client's pace can be told.
const sendfileBytes = 1 << 20

func (a *answer) sendPiece(raw syscall.RawConn, f *os.File, offset, n int64) (int64, error) {
	before := a.guard(int(n))
	fd, at, done := int(f.Fd()), offset, int64(0)
	var failed error
	err := raw.Write(func(to uintptr) bool {
		for done < n {
			k, err := unix.Sendfile(int(to), fd, &at, int(n-done))
			switch {
			case err == unix.EAGAIN:
				return false
			case err == unix.EINTR:
			case err != nil || k == 0:
				failed = errors.Join(err, errLength)
				return true
			}
			done += int64(max(k, 0))
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return done, a.sent(before, int(done), err)
}

// copyFile reads and writes.
func (a *answer) copyFile(f *os.File, offset, n int64) (int64, error) {
	b := takeBlock(middleBlock)
	defer b.give()
	for left := n; left > 0; {
		k, err := f.ReadAt(b.b[:min(left, int64(len(b.b)))], offset)
		if k == 0 {
			return n - left, errors.Join(err, errLength)
		}
		if _, err := a.write(b.b[:k]); err != nil {
			return n - left, err
		}
		offset, left = offset+int64(k), left-int64(k)
	}
	return n, nil
}
