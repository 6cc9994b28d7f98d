package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop is one thread on one epoll that plays all visitors and the target
// behind the proxy at once. It costs less than a second process would, so that
// the proxy is what is measured and not what stands around it. Nothing is
// allocated while it runs.
type loop struct {
	epoll  int
	conns  []atomic.Pointer[conn] // by descriptor
	events [256]unix.EpollEvent
	buf    []byte // what was read last
	sealed []byte // a record under way

	answers  answers
	targets  []*listener
	served   atomic.Int64  // requests that the target has answered
	trouble  atomic.Value  // error: the first that befell the target
	visitors []*visitor    // all that are connected
	idle     ring          // of visitors without a request
	spec     *visit        // what they ask for
	until    time.Duration // when no further request begins
	rate     float64       // requests a second; 0: each visitor asks as soon as it was answered
	next     time.Duration // when the next request is due
	dice     *rand.Rand
	done     int64
	failed   error
	times    *histogram
}

// epoch is what the loop's times are counted from.
var epoch = time.Now()

// side is one of the two roles that a connection has here.
type side interface {
	// feed takes what came; p is valid until it returns.
	feed(l *loop, p []byte) error
	// lost is told that the connection has ended.
	lost(l *loop, err error)
}

// conn is one connection of the loop.
type conn struct {
	fd       int
	side     side
	records  *records // nil: plain
	rest     []byte   // still to be sent
	armed    bool     // for writing
	fleeting bool     // what is sent does not last: rest is a copy
}

// maxDescriptor bounds the table of connections.
const maxDescriptor = 1 << 16

func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll: %w", err)
	}
	return &loop{
		epoll: fd, conns: make([]atomic.Pointer[conn], maxDescriptor), buf: make([]byte, 256<<10),
		dice: rand.New(rand.NewPCG(1, 2)), times: &histogram{}, answers: newAnswers(),
	}, nil
}

// add gives a connection to the loop; from any goroutine.
func (l *loop) add(c *conn) error {
	if c.fd >= len(l.conns) {
		return fmt.Errorf("descriptor %d is above %d", c.fd, len(l.conns))
	}
	if err := unix.SetNonblock(c.fd, true); err != nil {
		return fmt.Errorf("make a socket non-blocking: %w", err)
	}
	l.conns[c.fd].Store(c)
	return l.watch(c.fd, unix.EPOLL_CTL_ADD, unix.EPOLLIN)
}

func (l *loop) watch(fd, op int, events uint32) error {
	if err := unix.EpollCtl(l.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("watch a socket: %w", err)
	}
	return nil
}

// drop closes a connection.
func (l *loop) drop(c *conn, err error) {
	l.conns[c.fd].Store(nil)
	_ = unix.Close(c.fd)
	c.side.lost(l, err)
}

// spin polls without ever sleeping until enough says so: the proxy's writes
// need not wake anybody, and a request begins when it is due.
func (l *loop) spin(enough func() bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for !enough() {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epoll),
			uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), 0, 0, 0)
		if errno == 0 {
			l.deal(int(n))
		}
	}
}

// serve plays the target alone, asleep while nothing comes, until stop.
func (l *loop) serve(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if n, err := unix.EpollWait(l.epoll, l.events[:], 20); err == nil {
			l.deal(n)
		}
	}
}

// aside runs f while the loop serves as the target only.
func (l *loop) aside(f func() error) error {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); l.serve(stop) }()
	err := f()
	close(stop)
	<-ended
	return err
}

func (l *loop) deal(n int) {
	for i := range n {
		e := &l.events[i]
		c := l.conns[e.Fd].Load()
		if c == nil {
			l.accept(int(e.Fd))
			continue
		}
		var err error
		if e.Events&unix.EPOLLOUT != 0 {
			err = l.resume(c)
		}
		if err == nil && e.Events&^unix.EPOLLOUT != 0 {
			err = l.receive(c)
		}
		if err != nil {
			l.drop(c, err)
		}
	}
}

var errClosed = errors.New("the other side closed the connection")

// receive reads once; what is left makes the next event.
func (l *loop) receive(c *conn) error {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(&l.buf[0])), uintptr(len(l.buf)))
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		return nil
	case errno != 0:
		return errno
	case n == 0:
		return errClosed
	case c.records == nil:
		return c.side.feed(l, l.buf[:n])
	}
	return c.records.open(l.buf[:n], func(p []byte) error { return c.side.feed(l, p) })
}

// send sends p, of which the loop keeps what the socket does not take.
func (l *loop) send(c *conn, p []byte) error {
	if c.records != nil {
		l.sealed = c.records.seal(l.sealed[:0], p)
		p = l.sealed
	}
	if len(c.rest) > 0 {
		return errors.New("a second message before the first was sent")
	}
	n, err := write(c.fd, p)
	if err != nil || n == len(p) {
		return err
	}
	c.rest = p[n:]
	if c.fleeting || c.records != nil {
		c.rest = slices.Clone(c.rest)
	}
	c.armed = true
	return l.watch(c.fd, unix.EPOLL_CTL_MOD, unix.EPOLLIN|unix.EPOLLOUT)
}

// resume sends what send left.
func (l *loop) resume(c *conn) error {
	n, err := write(c.fd, c.rest)
	if err != nil {
		return err
	}
	if c.rest = c.rest[n:]; len(c.rest) > 0 || !c.armed {
		return nil
	}
	c.armed = false
	return l.watch(c.fd, unix.EPOLL_CTL_MOD, unix.EPOLLIN)
}

// write takes a full socket for nothing written.
func write(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		return 0, nil
	case errno != 0:
		return 0, errno
	}
	return int(n), nil
}

// ring is a queue of visitors; it never holds more than it was made for.
type ring struct {
	all     []*visitor
	head, n int
}

func (r *ring) push(v *visitor) {
	r.all[(r.head+r.n)%len(r.all)] = v
	r.n++
}

func (r *ring) pop() *visitor {
	v := r.all[r.head]
	r.head = (r.head + 1) % len(r.all)
	r.n--
	return v
}

// raw is a blocking socket as a net.Conn. It reads a TLS record's head, then
// its body, never more, so that what follows a handshake stays in the socket.
type raw struct {
	net.Conn // nil: none of its other methods is called
	fd       int
	head     int // bytes read of a record's head
	left     int // bytes to come of its body
	length   [5]byte
}

func (r *raw) Read(p []byte) (int, error) {
	want := r.left
	if want == 0 {
		want = len(r.length) - r.head
	}
	n, err := unix.Read(r.fd, p[:min(want, len(p))])
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, errClosed
	case r.left > 0:
		r.left -= n
		return n, nil
	}
	r.head += copy(r.length[r.head:], p[:n])
	if r.head == len(r.length) {
		r.head, r.left = 0, int(r.length[3])<<8|int(r.length[4])
	}
	return n, nil
}

func (r *raw) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		n, err := unix.Write(r.fd, p[sent:])
		if err != nil {
			return sent, err
		}
		sent += n
	}
	return len(p), nil
}

func (r *raw) Close() error                     { return nil } // the descriptor is its owner's
func (r *raw) SetDeadline(time.Time) error      { return nil } // the socket has its time limits
func (r *raw) SetReadDeadline(time.Time) error  { return nil }
func (r *raw) SetWriteDeadline(time.Time) error { return nil }
