package tunnel

import (
	"io"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"trivet/proxy/socket"
)

// Error says at which end moving bytes broke.
type Error struct {
	Write bool // at dst, else at src
	Err   error
}

// Error names the end.
func (e *Error) Error() string {
	if e.Write {
		return "write: " + e.Err.Error()
	}
	return "read: " + e.Err.Error()
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Splice moves exactly n bytes from src to dst, see Raw, and says how many
// reached dst. It waits on the runtime's poller and keeps to the deadlines of
// both connections. Every error is an *Error; of src's early end it is one with
// io.ErrUnexpectedEOF. After an error, bytes that src gave may be lost. It calls
// writing, if it is not nil, before each write, with the number of bytes: so a
// limit can be set on dst alone.
func Splice(dst, src syscall.RawConn, n int64, writing func(bytes int)) (int64, error) {
	m := takeMover()
	defer m.give()
	m.bulk, m.writing = n >= bulk, writing
	left := n
	for left > 0 {
		m.want = int(min(left, pipeSize))
		k, err := m.move(dst, src)
		left -= int64(k)
		if err != nil {
			return n - left, err
		}
		if k == 0 {
			return n - left, &Error{Err: io.ErrUnexpectedEOF}
		}
	}
	return n, nil
}

// bulk is from how many bytes on splicing costs less than reading and writing:
// 16 kB cost 8 µs by a pipe, 15 by a buffer, 1 kB the same by both.
const bulk = 8 << 10

// mover moves bytes from one socket to another, by a pipe where the last read
// gave many (bulk), else by a buffer. It holds either only while there is
// something in it. Its callbacks are made once, so that moving allocates nothing.
//
// It has one owner, who waits: see move. Another may move what is there
// already: see pass.
type mover struct {
	mu   sync.Mutex // held by whoever moves, but not while the owner waits for src
	held bool       // mu, by the owner; the owner's own

	bulk  bool
	ended bool // src
	want  int  // at most so many; as long as another may pass, it stays
	n     int  // bytes in the pipe or the buffer
	out   int  // of these, on their way
	from  int  // of these, on their way before the owner came
	err   error
	pipe  *pipe
	buf   *[largeBuffer]byte

	writing func(bytes int)

	fillFrom, drainTo func(fd uintptr) bool
	peekAt, offerTo   func(fd uintptr)
}

var movers = sync.Pool{New: func() any {
	m := new(mover)
	m.fillFrom, m.drainTo = m.fill, m.drain
	m.peekAt, m.offerTo = m.peek, m.offer
	return m
}}

func takeMover() *mover {
	m := movers.Get().(*mover)
	m.bulk, m.ended, m.want, m.writing = false, false, pipeSize, nil
	return m
}

// give returns what m holds; a pipe with something in it is closed.
func (m *mover) give() {
	m.release()
	movers.Put(m)
}

func (m *mover) release() {
	if m.pipe != nil {
		m.pipe.give(m.out == m.n)
		m.pipe = nil
	}
	if m.buf != nil {
		large.Put(m.buf)
		m.buf = nil
	}
	m.n, m.out, m.from, m.err = 0, 0, 0, nil
}

// move waits for bytes of src, and writes up to m.want of them to dst; 0: src has ended.
func (m *mover) move(dst, src syscall.RawConn) (int, error) {
	defer m.leave()
	if err := src.Read(m.fillFrom); err != nil {
		return 0, &Error{Err: err}
	}
	if m.err != nil {
		return 0, &Error{Err: m.err}
	}
	if m.n == 0 {
		return 0, nil
	}
	m.bulk = m.n >= bulk
	if m.writing != nil {
		m.writing(m.n)
	}
	if err := first(dst.Write(m.drainTo), m.err); err != nil {
		return m.out - m.from, &Error{Write: true, Err: err}
	}
	return m.out - m.from, nil
}

// leave ends the owner's moving.
func (m *mover) leave() {
	if !m.held {
		m.mu.Lock() // src failed while it was waited for
	}
	m.held = false
	m.release()
	m.mu.Unlock()
}

// fill is called when src may have something; false: it has nothing yet. If it
// is true, m.mu is held.
func (m *mover) fill(fd uintptr) bool {
	m.mu.Lock()
	m.held = true
	if m.from = m.out; m.err != nil || m.out < m.n {
		return true // another has left it
	}
	m.load(fd)
	if m.err != unix.EAGAIN {
		m.ended = m.n == 0 && m.err == nil
		return true
	}
	m.release()
	m.held = false
	m.mu.Unlock()
	return false
}

// load reads once.
func (m *mover) load(fd uintptr) {
	if m.bulk && m.pipe == nil {
		if m.pipe = takePipe(); m.pipe == nil {
			m.bulk = false // out of descriptors: go on with a buffer
		}
	}
	if !m.bulk && m.buf == nil {
		m.buf = large.Get().(*[largeBuffer]byte)
	}
	m.n, m.err = again(func() (int, error) { return m.loadOnce(int(fd)) })
}

func (m *mover) loadOnce(fd int) (int, error) {
	if m.pipe == nil {
		return orErrno(socket.Receive(uintptr(fd), m.buf[:min(m.want, largeBuffer)]))
	}
	n, err := unix.Splice(fd, nil, m.pipe.w, nil, m.want, unix.SPLICE_F_NONBLOCK)
	return int(n), err
}

// drain is called when dst may have room; false: not all is written yet.
func (m *mover) drain(fd uintptr) bool {
	for m.out < m.n {
		n, err := again(func() (int, error) { return m.unload(int(fd)) })
		if err == unix.EAGAIN {
			return false
		}
		if err != nil {
			m.err = err
			return true
		}
		m.out += n
	}
	return true
}

func (m *mover) unload(fd int) (int, error) {
	if m.pipe == nil {
		return orErrno(socket.Send(uintptr(fd), m.buf[m.out:m.n]))
	}
	n, err := unix.Splice(m.pipe.r, nil, fd, nil, m.n-m.out, unix.SPLICE_F_NONBLOCK)
	return int(n), err
}

// orErrno makes an error of errno, unless it is none.
func orErrno(n int, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return n, errno
	}
	return n, nil
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// again calls f until no signal interrupts it; an error has moved nothing.
func again(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err == nil {
			return n, nil
		}
		if err != unix.EINTR {
			return 0, err
		}
	}
}
