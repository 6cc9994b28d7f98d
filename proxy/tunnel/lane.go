package tunnel

import (
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"trivet/proxy/socket"
)

// lane is one direction of a tunnel between two plain sockets.
type lane struct {
	dst, src syscall.RawConn
	mover    *mover
	moved    *atomic.Int64
}

// lanes are those from a to b and back; nil if a or b is no plain socket.
func (t *Tunnel) lanes() (up, down *lane) {
	a, b := Raw(t.a), Raw(t.b)
	if a == nil || b == nil {
		return nil, nil
	}
	return &lane{b, a, takeMover(), &t.moved[0]}, &lane{a, b, takeMover(), &t.moved[1]}
}

func (l *lane) give() {
	if l != nil {
		l.mover.give()
	}
}

// pour carries own's bytes until its src ends. After a message it looks whether
// the other direction has the answer: under load it is there when all others
// have had their turn, and neither a vain read nor the poller is needed.
func (t *Tunnel) pour(own, other *lane) error {
	for {
		n, err := own.mover.move(own.dst, own.src)
		own.moved.Add(int64(n))
		if err != nil || n == 0 {
			return err
		}
		if n >= bulk {
			continue
		}
		runtime.Gosched()
		if other.pass() {
			runtime.Gosched()
		}
	}
}

// pass moves what is there already, if it is little; false: there was nothing
// of the kind, or not all of it was taken. It waits for nothing. What it leaves
// is its owner's, which the poller wakes: it came after the owner had looked.
func (l *lane) pass() bool {
	m := l.mover
	if !m.mu.TryLock() {
		return false
	}
	defer m.mu.Unlock()
	if m.bulk || m.ended || m.err != nil || m.out < m.n {
		return false
	}
	if l.src.Control(m.peekAt) != nil || m.n == 0 {
		return false
	}
	err := l.dst.Control(m.offerTo)
	l.moved.Add(int64(m.out))
	if err != nil || m.out < m.n {
		return false
	}
	m.bulk = m.n >= bulk
	more := !m.bulk
	m.release()
	return more
}

// peek reads what is there. An end is left for the owner to see; an error is
// not told twice, and kept.
func (m *mover) peek(fd uintptr) {
	m.load(fd)
	if m.n > 0 {
		return
	}
	err := m.err
	m.release()
	if err != unix.EAGAIN {
		m.err = err
	}
}

// offer writes what dst takes at once. The owner will see an error, too.
func (m *mover) offer(fd uintptr) {
	for m.out < m.n {
		n, errno := socket.Send(fd, m.buf[m.out:m.n])
		if errno != 0 && errno != unix.EINTR {
			return
		}
		m.out += n
	}
}
