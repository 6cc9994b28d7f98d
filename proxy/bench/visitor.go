package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// visit is what all visitors of a run do.
type visit struct {
	port    int
	tls     *tls.Config // nil: plain
	request []byte      // sent each time
	upgrade []byte      // sent once, first; then request is echoed
	n       int         // connections
}

// visitor is a connection on which one request at a time is sent.
type visitor struct {
	conn
	due   time.Duration // when its request should have begun
	busy  bool
	left  int    // bytes of the answer's body that are still to come
	echo  int    // length of what comes back for each request, where there is no HTTP any more
	part  []byte // of a head that has not come whole
	await bool   // of a head
}

// connect opens all connections of a visit, in the place of those before.
func (l *loop) connect(v *visit) error {
	l.leave()
	l.spec, l.failed = v, nil
	l.visitors = make([]*visitor, v.n)
	l.idle = ring{all: make([]*visitor, v.n)}
	err := l.aside(func() error {
		return abreast(v.n, 32, func(i int) (err error) { l.visitors[i], err = v.open(); return })
	})
	if err != nil {
		return err
	}
	for _, one := range l.visitors {
		if err := l.add(&one.conn); err != nil {
			return err
		}
		l.idle.push(one)
	}
	return nil
}

// abreast runs f for 0 to n-1, so many at a time, and returns the first error.
func abreast(n, at int, f func(int) error) error {
	var wg sync.WaitGroup
	errs, places := make([]error, n), make(chan struct{}, at)
	for i := range n {
		places <- struct{}{}
		wg.Go(func() { errs[i] = f(i); <-places })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// leave closes the visitors' connections.
func (l *loop) leave() {
	for _, v := range l.visitors {
		if v != nil && l.conns[v.fd].Load() == &v.conn {
			l.conns[v.fd].Store(nil)
			_ = unix.Close(v.fd)
		}
	}
	l.visitors = nil
}

// open makes one connection, with its handshake and upgrade.
func (v *visit) open() (*visitor, error) {
	fd, err := dial(v.port)
	if err != nil {
		return nil, err
	}
	one := &visitor{}
	one.fd, one.side = fd, one
	if v.tls != nil {
		if one.records, err = handshake(fd, v.tls, true); err != nil {
			return nil, err
		}
	}
	if v.upgrade != nil {
		if err := upgrade(fd, v.upgrade); err != nil {
			return nil, err
		}
		one.echo = len(v.request)
	}
	return one, nil
}

// patience is how long a socket waits in what is not measured.
const patience = 10 * time.Second

// dial opens a blocking socket to a port of this machine.
func dial(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("make a socket: %w", err)
	}
	settle(fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("connect to port %d: %w", port, err)
	}
	return fd, nil
}

// settle sets the options of a socket.
func settle(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
}

// handshake makes a blocking socket's TLS.
func handshake(fd int, config *tls.Config, isClient bool) (*records, error) {
	config = config.Clone()
	log := &keyLog{}
	config.KeyLogWriter = log
	c := tls.Server(&raw{fd: fd}, config)
	if isClient {
		c = tls.Client(&raw{fd: fd}, config)
	}
	if err := c.Handshake(); err != nil {
		return nil, fmt.Errorf("make a handshake: %w", err)
	}
	return newRecords(c.ConnectionState(), log, isClient)
}

// upgrade leaves HTTP.
func upgrade(fd int, request []byte) error {
	c := &raw{fd: fd}
	if _, err := c.Write(request); err != nil {
		return fmt.Errorf("ask for an upgrade: %w", err)
	}
	head, one := []byte(nil), make([]byte, 1)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		n, err := unix.Read(fd, one)
		if err != nil || n == 0 {
			return fmt.Errorf("await an upgrade: %w, after %q", err, head)
		}
		head = append(head, one...)
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		return fmt.Errorf("the upgrade was answered with %q", head)
	}
	return nil
}

// ask sends a visitor's request.
func (l *loop) ask(v *visitor, due time.Duration) {
	v.due, v.busy, v.await, v.left = due, true, v.echo == 0, v.echo
	if err := l.send(&v.conn, l.spec.request); err != nil {
		l.drop(&v.conn, err)
	}
}

// feed takes a part of an answer.
func (v *visitor) feed(l *loop, p []byte) error {
	if v.await {
		if len(v.part) > 0 {
			v.part = append(v.part, p...)
			p = v.part
		}
		end := bytes.Index(p, []byte("\r\n\r\n"))
		if end < 0 {
			v.part = append(v.part[:0], p...)
			return nil
		}
		v.part = v.part[:0]
		v.await = false
		var err error
		if v.left, err = bodyLength(p[:end+2]); err != nil {
			return err
		}
		p = p[end+4:]
	}
	if v.left -= len(p); v.left < 0 || !v.busy {
		return fmt.Errorf("%d bytes that were not asked for", -v.left)
	}
	if v.left == 0 {
		l.answered(v)
	}
	return nil
}

var lengthField = []byte("ontent-")

// bodyLength of an answer of 200.
func bodyLength(head []byte) (int, error) {
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("answer %q", head)
	}
	for at := 0; ; {
		i := bytes.Index(head[at:], lengthField)
		if i < 0 {
			return 0, fmt.Errorf("no length in %q", head)
		}
		at += i + len(lengthField)
		if name, rest, ok := bytes.Cut(head[at:], []byte(":")); ok && bytes.EqualFold(name, []byte("length")) {
			digits, _, _ := bytes.Cut(rest, []byte("\r\n"))
			return strconv.Atoi(string(bytes.TrimSpace(digits)))
		}
	}
}

// answered notes an answer, and lets the visitor ask again where there is no rate.
func (l *loop) answered(v *visitor) {
	now := time.Since(epoch)
	l.times.add(now - v.due)
	l.done++
	v.busy = false
	if l.rate == 0 && now < l.until {
		l.ask(v, now)
		return
	}
	l.idle.push(v)
}

// lost ends a run: no proxy has a reason to close these connections.
func (v *visitor) lost(l *loop, err error) {
	if l.failed == nil {
		l.failed = fmt.Errorf("a visitor's connection: %w", err)
	}
}

// visits lets the visitors ask for so long, each as soon as it was answered or
// all together rate times a second, and waits for the last answers. It returns
// how many came in time, and how many in all. The times that it notes count
// from when a request was due, not from when a connection was free for it.
func (l *loop) visits(ctx context.Context, d time.Duration, rate float64) (within, all int64, err error) {
	l.times.reset()
	begun := time.Since(epoch)
	l.done, l.rate, l.until, l.next = 0, rate, begun+d, begun
	for n := l.idle.n; rate == 0 && n > 0; n-- {
		l.ask(l.idle.pop(), begun)
	}
	l.spin(func() bool { l.pace(); return l.failed != nil || time.Since(epoch) > l.until })
	within = l.done
	limit := l.until + patience
	l.spin(func() bool {
		return l.failed != nil || l.idle.n == len(l.visitors) || time.Since(epoch) > limit
	})
	switch {
	case l.failed != nil:
		return 0, 0, l.failed
	case l.idle.n < len(l.visitors):
		return 0, 0, fmt.Errorf("%d of %d requests were not answered within %s", len(l.visitors)-l.idle.n, len(l.visitors), patience)
	case l.trouble.Load() != nil:
		return 0, 0, l.trouble.Load().(error)
	}
	return within, l.done, ctx.Err()
}

// pace begins what is due, at times as those of people who know nothing of each other.
func (l *loop) pace() {
	if l.rate == 0 {
		return
	}
	now := time.Since(epoch)
	for l.next <= now && l.idle.n > 0 {
		l.ask(l.idle.pop(), l.next)
		l.next += time.Duration(l.dice.ExpFloat64() / l.rate * float64(time.Second))
	}
}
