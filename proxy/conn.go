package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trivet/proxy/h2"
	"trivet/proxy/socket"
)

// conn is a client's connection. It is small, for it is all that is left of
// one that is parked; what serving needs is in its turn.
type conn struct {
	server *Server
	net    net.Conn             // as it is read and written
	state  *tls.ConnectionState // nil: plain
	h2     *h2.Conn             // nil: HTTP/1.1
	peer   netip.AddrPort

	// Limits of the read and the write that may be under way: a time on the
	// server's clock, negative if the wait is an idle one; 0: none.
	// expired: the sweep has interrupted it, and the deadline must be mended.
	reads, writes atomic.Int64
	// exchange is when the exchange under way began, negative if the client is
	// watched; 0: none.
	exchange atomic.Int64
	tunnel   atomic.Bool
	tunnels  atomic.Int32 // of an HTTP/2 connection's streams

	mu      sync.Mutex // deadlines; the epoll's and the turn's state as others see it
	turn    *turn      // nil: parked
	fd      int32      // -1: cannot be parked
	number  int32      // on the epoll; 0: was never there
	greeted bool       // TLS is established
	closed  bool

	// Of the server's lists, under its mutex.
	on         *list
	next, prev *conn
	until      int64 // parked until then
}

const expired = 1<<63 - 1

// past is the deadline of what is interrupted.
var past = time.Unix(1, 0)

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{server: s, net: nc, fd: descriptor(nc)}
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		c.peer = a.AddrPort()
		c.peer = netip.AddrPortFrom(c.peer.Addr().Unmap(), c.peer.Port())
	}
	if s.config.TLS != nil {
		c.net = tls.Server(socket.Wrap(nc), s.config.TLS)
	}
	return c
}

// descriptor of nc, -1 if it has none.
func descriptor(nc net.Conn) int32 {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return -1
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1
	}
	fd := int32(-1)
	if raw.Control(func(d uintptr) { fd = int32(d) }) != nil {
		return -1
	}
	return fd
}

// serve runs in a goroutine of the crew until c is parked or closed.
func (c *conn) serve() {
	if c.until < 0 && c.h2 != nil {
		c.h2.End()
	}
	if c.until < 0 || !c.greet() { // taken out of the lot to be closed, or no TLS
		c.close()
		return
	}
	if c.h2 != nil {
		c.serveH2()
		return
	}
	c.serveTurns()
}

// greet makes the TLS handshake, once.
func (c *conn) greet() bool {
	secure, ok := c.net.(*tls.Conn)
	if !ok || c.greeted {
		return true
	}
	c.greeted = true
	limit := c.server.rules.Load().times.Head
	c.guardRead(limit)
	c.guardWrite(limit)
	err := secure.Handshake()
	c.guardRead(0)
	c.guardWrite(0)
	state := secure.ConnectionState()
	c.server.config.Handshake(&state, err)
	if err != nil {
		return false
	}
	c.state = &state
	if c.server.config.HTTP2 && state.NegotiatedProtocol == "h2" {
		cfg := c.server.http2Config() // before c.mu: the server's lock comes first
		c.mu.Lock()
		c.h2 = h2.New(&h2Conn{secure, c}, cfg)
		c.mu.Unlock()
	}
	return true
}

// guardRead limits the reads from now on to d; 0: no limit.
func (c *conn) guardRead(d time.Duration) {
	if c.reads.Swap(c.from(d)) == expired {
		c.mend(c.net.SetReadDeadline)
	}
}

// guardIdle limits a read that may be ended early, when the server drains.
func (c *conn) guardIdle(d time.Duration) {
	if c.reads.Swap(-c.from(d)) == expired {
		c.mend(c.net.SetReadDeadline)
	}
}

// guardWrite limits the writes from now on to d; 0: no limit.
func (c *conn) guardWrite(d time.Duration) {
	if c.writes.Swap(c.from(d)) == expired {
		c.mend(c.net.SetWriteDeadline)
	}
}

func (c *conn) from(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return c.server.clock.Load() + int64(d)
}

// mend takes back what the sweep did.
func (c *conn) mend(set func(time.Time) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = set(time.Time{})
}

// waits says that c waits for a request, or is a tunnel.
func (c *conn) waits() bool {
	if c.tunnel.Load() {
		return c.reads.Load() == 0 && c.writes.Load() == 0
	}
	return c.reads.Load() < 0 && c.exchange.Load() == 0
}

// begins is called when a request or its head was begun; true: the clock had to
// be set, and what was taken from it must be taken anew.
func (c *conn) begins() bool {
	s := c.server
	if !s.resting.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rouse()
	return true
}

// expire interrupts reads or writes that are over their limit; an idle wait so much earlier.
func (c *conn) expire(now, early int64) {
	switch v := c.reads.Load(); {
	case v == 0 || v == expired:
	case v > 0 && v <= now, v < 0 && c.fd >= 0 && -v-early <= now:
		c.interrupt(&c.reads, v, c.net.SetReadDeadline)
	}
	if v := c.writes.Load(); v != 0 && v != expired && v <= now {
		c.interrupt(&c.writes, v, c.net.SetWriteDeadline)
	}
}

func (c *conn) interrupt(word *atomic.Int64, v int64, set func(time.Time) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if word.CompareAndSwap(v, expired) {
		_ = set(past)
	}
}

// stopReading ends a read that is under way, or the next.
func (c *conn) stopReading() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads.Store(expired)
	_ = c.net.SetReadDeadline(past)
}

// hurry ends an idle wait.
func (c *conn) hurry() {
	if v := c.reads.Load(); v < 0 {
		c.interrupt(&c.reads, v, c.net.SetReadDeadline)
	}
}

// http2 is what is to be told to end by itself; nil: nothing is.
func (c *conn) http2() *h2.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.h2
}

// cut ends the exchanges under way.
func (c *conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn != nil {
		c.turn.watch.leave()
	}
	_ = rawConn(c.net).SetDeadline(past)
	if c.h2 != nil {
		_ = rawConn(c.net).Close()
	}
}

// rawConn is what is beneath TLS.
func rawConn(nc net.Conn) net.Conn {
	if t, ok := nc.(*tls.Conn); ok {
		return socket.Unwrap(t.NetConn())
	}
	return nc
}

// idleWait is how long a goroutine waits for the next request before c is parked.
const idleWait = time.Second

// park leaves c to the epoll; if it is true, the caller's goroutine must not
// touch it any more. It is false for HTTP/2 when the server drains: the client
// is to be told.
func (c *conn) park(idle time.Duration) bool {
	c.guardRead(0)
	c.guardWrite(0)
	s := c.server
	switch s.toLot(c, idle) {
	case stays:
		return false
	case ends:
		c.close()
		return true
	}
	c.mu.Lock()
	err := s.lot.arm(c, unix.EPOLLIN|unix.EPOLLRDHUP)
	c.mu.Unlock()
	if err != nil && s.fromLot(c, false) {
		c.close()
	}
	return true
}

// parkNew parks c before anything has come, so that in a crowd those who are
// silent get no goroutine; false: it cannot be, or has a handshake to make, which
// is limited otherwise.
func (c *conn) parkNew() bool {
	if _, secure := c.net.(*tls.Conn); secure || c.fd < 0 {
		return false
	}
	return c.park(c.server.rules.Load().times.Idle)
}

// pending says that something has come which was not read.
func (c *conn) pending() bool {
	if c.fd < 0 {
		return false
	}
	n, err := unix.IoctlGetInt(int(c.fd), unix.SIOCINQ)
	return err == nil && n > 0
}

// close ends c for good.
func (c *conn) close() {
	c.mu.Lock()
	c.closed = true
	c.server.lot.forget(c)
	c.mu.Unlock()
	c.server.quit(c)
	_ = c.net.Close()
	c.server.gone()
}

// watchClient arms the epoll for the end of a client that waits for long.
func (c *conn) watchClient(began int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed && c.exchange.CompareAndSwap(began, -began) {
		_ = c.server.lot.arm(c, unix.EPOLLRDHUP)
	}
}

// unwatch ends that.
func (c *conn) unwatch() {
	if c.exchange.Swap(0) >= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.server.lot.arm(c, 0)
}

// clientEvent is called for what the epoll saw of c while it is not parked.
func (c *conn) clientEvent(events uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 && c.exchange.Load() < 0 && c.turn != nil {
		c.turn.watch.leave()
	}
}

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
