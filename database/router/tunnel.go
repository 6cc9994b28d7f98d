package router

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trivet/internal/mtls"
	"trivet/internal/part"
)

// kind is what a connection is for.
type kind byte

const (
	kindWrite kind = 0
	kindRead  kind = 1
	kindWatch kind = 2 // no database: see watch.go
)

// dial reaches the mariadbd at p: its socket, or through the tunnel.
func (r *Router) dial(ctx context.Context, a aim, p place, k kind) (net.Conn, error) {
	if p.local {
		return new(net.Dialer).DialContext(ctx, "unix", r.cfg.Database)
	}
	d := tls.Dialer{NetDialer: dialer(), Config: mtls.Client(&r.source, p.server, part.Router)}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(p.address, strconv.Itoa(r.cfg.TunnelPort)))
	if err != nil {
		return nil, err
	}
	if err := r.ask(ctx, c, k, a.epoch); err != nil {
		_ = hard(c).Close()
		return nil, err
	}
	return c, nil
}

// The tunnel's preface: the caller sends the kind, one byte, and the epoch,
// seven bytes, big-endian. The callee answers yes once mariadbd has taken the
// connection. Or it hangs up; before that, if it knows a newer epoch, it says
// so: no, the epoch in eight bytes, and the length and the name of the writer.
const (
	prefaceSize = 8
	kindShift   = 56
	yes         = 'Y'
	no          = 'N'
)

// ask sends the preface and reads the answer. What it hears of a newer epoch counts.
func (r *Router) ask(ctx context.Context, c net.Conn, k kind, epoch int64) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	var preface [prefaceSize]byte
	binary.BigEndian.PutUint64(preface[:], uint64(epoch)|uint64(k)<<kindShift)
	if _, err := c.Write(preface[:]); err != nil {
		stop()
		return err
	}
	var answer [1]byte
	_, err := io.ReadFull(c, answer[:])
	var newer news
	if err == nil && answer[0] == no {
		newer, err = readNews(c)
	}
	switch {
	case !stop():
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("its router hung up: %w", err)
	case answer[0] == no:
		r.hear(newer)
		return fmt.Errorf("it says that %s takes the writes in epoch %d", newer.writer, newer.epoch)
	case answer[0] != yes:
		return fmt.Errorf("its router answered %q", answer[:])
	}
	return nil
}

// news is what a router tells another of who takes the writes.
type news struct {
	epoch  int64
	writer string
}

func (n news) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(append(b, no), uint64(n.epoch))
	return append(append(b, byte(len(n.writer))), n.writer...)
}

func readNews(c io.Reader) (news, error) {
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return news{}, err
	}
	name := make([]byte, head[8])
	_, err := io.ReadFull(c, name)
	return news{epoch: int64(binary.BigEndian.Uint64(head[:])), writer: string(name)}, err
}

// silence is how long sent bytes may stay without an answer from the peer's kernel.
const silence = 2 * time.Second

// dialer ends connections to a machine that is gone within about two seconds,
// whether something is being sent (TCP_USER_TIMEOUT) or not (keep-alive); tcp(7).
func dialer() *net.Dialer {
	return &net.Dialer{KeepAliveConfig: keepAlive, Control: func(_, _ string, raw syscall.RawConn) error { return userTimeout(raw) }}
}

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}

func userTimeout(raw syscall.RawConn) error {
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}
