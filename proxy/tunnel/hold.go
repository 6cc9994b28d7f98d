package tunnel

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Hold keeps bytes of a plain socket in the kernel, in a pipe, until they are
// wanted: they are never copied. TakeHold gives one, Give returns it.
type Hold struct {
	pipe *pipe
	want int // bytes in all
	n    int // bytes that came
	out  int // of these, that have left
	err  error

	fillFrom, drainTo func(fd uintptr) bool
}

// HoldLimit is how many bytes a Hold keeps at most.
const HoldLimit = 64 << 10

// heldAtOnce bounds the pipes that are held, and so the descriptors.
const heldAtOnce = keptPipes

// ErrHoldFull is why a Hold takes no more: a pipe has a number of places, and
// each small piece takes one. What it has can be had by Read.
var ErrHoldFull = errors.New("pipe is full")

var (
	holding atomic.Int64
	holds   = sync.Pool{New: func() any {
		h := new(Hold)
		h.fillFrom, h.drainTo = h.fill, h.drain
		return h
	}}
)

// TakeHold is an empty Hold, or nil if there are too many already.
func TakeHold() *Hold {
	if holding.Add(1) > heldAtOnce {
		holding.Add(-1)
		return nil
	}
	p := takePipe()
	if p == nil {
		holding.Add(-1)
		return nil
	}
	h := holds.Get().(*Hold)
	h.pipe, h.want, h.n, h.out, h.err = p, 0, 0, 0, nil
	return h
}

// Give returns h with whatever is in it; nil is let be.
func (h *Hold) Give() {
	if h == nil {
		return
	}
	h.pipe.give(h.out == h.n)
	h.pipe = nil
	holds.Put(h)
	holding.Add(-1)
}

// Len is how many bytes are in h.
func (h *Hold) Len() int { return h.n - h.out }

// Fill takes n bytes of src, at most HoldLimit, and says how many came. It
// waits as reading does. It is ErrHoldFull if they find no place.
func (h *Hold) Fill(src syscall.RawConn, n int) (int, error) {
	had := h.n
	h.want, h.err = h.n+n, nil
	err := first(src.Read(h.fillFrom), h.err)
	return h.n - had, err
}

func (h *Hold) fill(fd uintptr) bool {
	for h.n < h.want {
		n, err := h.load(int(fd))
		if err == unix.EAGAIN && h.n > h.out && waits(fd) {
			// It may have come just now; else it is the pipe that takes no more.
			n, err = h.load(int(fd))
			if err == unix.EAGAIN {
				err = ErrHoldFull
			}
		}
		switch {
		case err == unix.EAGAIN:
			return false
		case err != nil:
			h.err = err
			return true
		case n == 0:
			h.err = io.ErrUnexpectedEOF
			return true
		}
		h.n += n
	}
	return true
}

func (h *Hold) load(fd int) (int, error) {
	return again(func() (int, error) {
		n, err := unix.Splice(fd, nil, h.pipe.w, nil, h.want-h.n, unix.SPLICE_F_NONBLOCK)
		return int(n), err
	})
}

// waits says that a socket has something to read.
func waits(fd uintptr) bool {
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
	return err == nil && n > 0
}

// Drain moves all of h to dst, and says how much that was.
func (h *Hold) Drain(dst syscall.RawConn) (int, error) {
	had := h.out
	h.err = nil
	err := first(dst.Write(h.drainTo), h.err)
	return h.out - had, err
}

func (h *Hold) drain(fd uintptr) bool {
	for h.out < h.n {
		n, err := again(func() (int, error) {
			n, err := unix.Splice(h.pipe.r, nil, int(fd), nil, h.n-h.out, unix.SPLICE_F_NONBLOCK)
			return int(n), err
		})
		if err == unix.EAGAIN {
			return false
		}
		if err != nil {
			h.err = err
			return true
		}
		h.out += n
	}
	return true
}

// Read takes bytes out of h; io.EOF when it is empty.
func (h *Hold) Read(p []byte) (int, error) {
	if h.out == h.n {
		return 0, io.EOF
	}
	n, err := again(func() (int, error) { return unix.Read(h.pipe.r, p[:min(len(p), h.Len())]) })
	h.out += n
	return n, err
}
