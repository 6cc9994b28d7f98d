package proxy

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// lot is where connections are parked: one epoll for all of them. It is itself
// waited for by the runtime's poller, so that it holds no thread.
//
// Each descriptor is armed for one event at a time (EPOLLONESHOT). It is named
// by its number and the connection's own, so that an event of a descriptor that
// was closed and opened anew meanwhile is none of the new one's.
type lot struct {
	epoll int
	file  *os.File
	raw   syscall.RawConn
	ready func(c *conn, events uint32)

	mu     sync.Mutex
	places []*conn // by descriptor
	last   int32   // number given to a connection
}

func newLot(ready func(*conn, uint32)) (*lot, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	l := &lot{epoll: fd, file: os.NewFile(uintptr(fd), "epoll"), ready: ready}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		_ = l.file.Close()
		return nil, err
	}
	return l, nil
}

// run tells of events until the lot is closed.
func (l *lot) run() {
	events := make([]unix.EpollEvent, 128)
	for {
		n := 0
		err := l.raw.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			if c := l.at(e.Fd, e.Pad); c != nil {
				l.ready(c, e.Events)
			}
		}
	}
}

func (l *lot) at(fd, number int32) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int(fd) >= len(l.places) {
		return nil
	}
	if c := l.places[fd]; c != nil && c.number == number {
		return c
	}
	return nil
}

// arm waits for one of events on c, whose mutex is held. It is an error if c
// cannot be waited for.
func (l *lot) arm(c *conn, events uint32) error {
	if c.fd < 0 || c.closed {
		return unix.EPERM
	}
	op := unix.EPOLL_CTL_MOD
	if c.number == 0 {
		op = unix.EPOLL_CTL_ADD
		l.place(c)
	}
	return unix.EpollCtl(l.epoll, op, int(c.fd), &unix.EpollEvent{Events: events | unix.EPOLLONESHOT, Fd: c.fd, Pad: c.number})
}

func (l *lot) place(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for int(c.fd) >= len(l.places) {
		l.places = append(l.places, nil)
	}
	l.places[c.fd] = c
	if l.last++; l.last <= 0 {
		l.last = 1
	}
	c.number = l.last
}

// forget is called before c is closed, which takes it off the epoll.
func (l *lot) forget(c *conn) {
	if c.number == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.places[c.fd] == c {
		l.places[c.fd] = nil
	}
}

func (l *lot) close() { _ = l.file.Close() }
