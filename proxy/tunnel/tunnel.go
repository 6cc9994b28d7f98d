// Package tunnel carries bytes between two connections without looking at
// them: both ways until both have ended (Tunnel), or a body of known length one
// way (Splice).
//
// Between two plain sockets large amounts stay in the kernel, moved by
// splice(2) through a pipe; small ones, such as the frames of a WebSocket, are
// read and written, which is cheaper. net.TCPConn's own ReadFrom splices as
// well, but holds a pipe of two descriptors and 1 MiB for as long as it waits,
// splices one-byte messages too, and does not tell that bytes moved, which an
// idle limit has to know. Here a direction that waits on a plain socket holds
// neither a pipe nor a buffer.
package tunnel

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrIdle is why a tunnel ended through which nothing came for too long.
var ErrIdle = errors.New("tunnel idle for too long")

// ErrCancelled is why a tunnel ended that was cancelled without a cause.
var ErrCancelled = errors.New("tunnel cancelled")

// Tunnel joins two connections. Make one by New; it is used once.
type Tunnel struct {
	a, b  net.Conn
	idle  time.Duration
	moved [2]atomic.Int64 // bytes to b, to a
	cause atomic.Pointer[error]
}

// New joins a and b. A tunnel without a byte in either direction for idle ends
// (up to a quarter later); 0 is no limit. A connection that wraps a plain
// socket and is to be spliced has a method Raw() syscall.RawConn.
func New(a, b net.Conn, idle time.Duration) *Tunnel {
	return &Tunnel{a: a, b: b, idle: idle}
}

// Run carries bytes both ways until both directions have ended, and says how
// many came through. The end of one is passed on by CloseWrite, and the other
// goes on; where there is no CloseWrite, both end. err is nil if both ended by
// themselves, else why the first was broken off. The caller closes the
// connections; it must have cleared their deadlines before, and must leave them
// alone meanwhile.
func (t *Tunnel) Run() (toB, toA int64, err error) {
	if t.idle > 0 {
		stop := t.watch()
		defer stop()
	}
	up, down := t.lanes()
	var other sync.WaitGroup
	other.Go(func() { t.carry(t.a, t.b, &t.moved[1], down, up) })
	t.carry(t.b, t.a, &t.moved[0], up, down)
	other.Wait()
	up.give()
	down.give()
	return t.moved[0].Load(), t.moved[1].Load(), t.err()
}

// Moved is how many bytes came through so far.
func (t *Tunnel) Moved() (toB, toA int64) { return t.moved[0].Load(), t.moved[1].Load() }

// Cancel makes Run return cause soon, unless it has ended for another reason.
// It may be called from any goroutine, before Run as well.
func (t *Tunnel) Cancel(cause error) {
	if cause == nil {
		cause = ErrCancelled
	}
	if !t.cause.CompareAndSwap(nil, &cause) {
		return
	}
	past := time.Unix(1, 0)
	_ = t.a.SetDeadline(past) // closed already: ended already
	_ = t.b.SetDeadline(past)
}

func (t *Tunnel) err() error {
	if p := t.cause.Load(); p != nil {
		return *p
	}
	return nil
}

// watch looks every quarter of the idle limit whether bytes came through.
func (t *Tunnel) watch() (stop func()) {
	var mu sync.Mutex
	var timer *time.Timer
	seen, still, over := int64(-1), 0, false
	look := func() {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		if now := t.moved[0].Load() + t.moved[1].Load(); now != seen {
			seen, still = now, 0
		} else if still++; still >= 4 {
			t.Cancel(ErrIdle)
			return
		}
		timer.Reset(max(t.idle/4, time.Millisecond))
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(0, look)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}

// carry moves src's bytes to dst until src ends, and passes the end on.
func (t *Tunnel) carry(dst, src net.Conn, moved *atomic.Int64, own, other *lane) {
	var err error
	if own == nil {
		err = copyAll(dst, src, moved)
	} else {
		err = t.pour(own, other)
	}
	if err == nil {
		err = closeWrite(dst)
	}
	if err != nil {
		t.Cancel(err)
	}
}

// errEnded ends both directions where the end of one cannot be told.
var errEnded = errors.New("end of one direction cannot be passed on")

func closeWrite(c net.Conn) error {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return errEnded
	}
	err := half.CloseWrite()
	if errors.Is(err, syscall.ENOTCONN) { // it has gone already; the other direction says how
		return nil
	}
	return err
}

// Raw is c's plain socket, for Splice: that of a TCP connection, of a Unix
// stream, or what c's own method Raw returns; nil if c has none.
func Raw(c net.Conn) syscall.RawConn {
	var s syscall.Conn
	switch c := c.(type) {
	case interface{ Raw() syscall.RawConn }:
		return c.Raw()
	case *net.TCPConn:
		s = c
	case *net.UnixConn:
		if c.LocalAddr().Network() != "unix" {
			return nil
		}
		s = c
	default:
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}
