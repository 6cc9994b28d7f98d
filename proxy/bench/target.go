package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// listener is where the target behind the proxies listens.
type listener struct {
	fd   int
	port int
	tls  *tls.Config // nil: plain
}

// answers are what the target gives, by the first letter of the path. They are
// made by the loop alone: this program is a peer too, whose memory is measured.
type answers struct{ small, medium, large []byte }

func newAnswers() answers {
	return answers{small: answer(36), medium: answer(64 << 10), large: answer(10 << 20)} // small is 130 bytes in all
}

var upgraded = []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n") // for the key of RFC 6455, 1.3

// answer is a whole one with a body of so many bytes.
func answer(n int) []byte {
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: target\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nX-Of: bench\r\n\r\n", n)
	return append([]byte(head), bytes.Repeat([]byte("trivet. "), n/8+1)[:n]...)
}

// listen opens the target's port.
func (l *loop) listen(port int, config *tls.Config) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return fmt.Errorf("bind port %d: %w", port, err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return fmt.Errorf("listen on port %d: %w", port, err)
	}
	l.targets = append(l.targets, &listener{fd, port, config})
	return l.watch(fd, unix.EPOLL_CTL_ADD, unix.EPOLLIN)
}

// accept takes all who wait.
func (l *loop) accept(fd int) {
	i := slices.IndexFunc(l.targets, func(t *listener) bool { return t.fd == fd })
	if i < 0 {
		return // of a connection that was dropped within the same batch of events
	}
	for {
		got, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		settle(got)
		if l.targets[i].tls == nil {
			l.serveOn(got, nil)
			continue
		}
		go l.greet(got, l.targets[i].tls)
	}
}

// greet makes the handshake, which blocks, beside the loop.
func (l *loop) greet(fd int, config *tls.Config) {
	r, err := handshake(fd, config, false)
	if err != nil {
		_ = unix.Close(fd) // a proxy that ends does so
		return
	}
	l.serveOn(fd, r)
}

func (l *loop) serveOn(fd int, r *records) {
	t := &target{}
	t.fd, t.side, t.records = fd, t, r
	if err := l.add(&t.conn); err != nil {
		l.trouble.CompareAndSwap(nil, err)
	}
}

// target is a connection that the proxy opened.
type target struct {
	conn
	part []byte // of a request's head
	echo bool
}

// feed answers the one request of p.
func (t *target) feed(l *loop, p []byte) error {
	if t.echo {
		l.served.Add(1)
		return l.send(&t.conn, p)
	}
	if len(t.part) > 0 {
		t.part = append(t.part, p...)
		p = t.part
	}
	if !bytes.HasSuffix(p, []byte("\r\n\r\n")) {
		t.part = append(t.part[:0], p...)
		return nil
	}
	t.part = t.part[:0]
	if !bytes.HasPrefix(p, []byte("GET /")) {
		return fmt.Errorf("a proxy has sent %q", p)
	}
	l.served.Add(1)
	switch p[len("GET /")] {
	case 'm':
		return l.send(&t.conn, l.answers.medium)
	case 'l':
		return l.send(&t.conn, l.answers.large)
	case 'w':
		t.echo, t.fleeting = true, true
		return l.send(&t.conn, upgraded)
	}
	return l.send(&t.conn, l.answers.small)
}

// lost is no trouble: a proxy may close what it does not need.
func (t *target) lost(*loop, error) {}
