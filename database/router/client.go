package router

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trivet/internal/mtls"
	"trivet/internal/part"
)

// Errors that a client gets instead of the server's greeting; the numbers are MariaDB's own.
const (
	errTooMany  = 1040 // ER_CON_COUNT_ERROR
	errNoWriter = 1290 // ER_OPTION_PREVENTS_STATEMENT: drivers take it for a server that became read-only, and connect anew
)

// client serves one connection of the app.
func (r *Router) client(ctx context.Context, c net.Conn) {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if !r.place(waiting) {
		r.refuse(c, errTooMany, "trivet: too many connections to the database on this server")
		return
	}
	defer func() { <-r.piped }()
	upstream, life, err := r.reach(waiting)
	if err != nil {
		r.log.Warn("connection refused", "err", err)
		r.refuse(c, errNoWriter, "trivet: the database takes no writes now: "+err.Error())
		return
	}
	r.meters.opened.Inc()
	r.meters.open.Inc()
	defer r.meters.open.Dec()
	pipe(ctx, life, c, upstream)
}

// place takes a place among the piped, in a queue of limited length.
func (r *Router) place(ctx context.Context) bool {
	select {
	case r.piped <- struct{}{}:
		return true
	default:
	}
	select {
	case r.waiting <- struct{}{}:
		defer func() { <-r.waiting }()
	default:
		return false
	}
	select {
	case r.piped <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// reach connects to the writer of the moment, again and again until ctx ends.
// The channel that it returns is closed when that writer's epoch ends.
func (r *Router) reach(ctx context.Context) (net.Conn, <-chan struct{}, error) {
	last := errors.New("no server is agreed to take them")
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		t, life, err := r.targets.wait(ctx, func(t target) bool { return t.writer != "" })
		if err != nil {
			return nil, nil, last
		}
		c, err := r.try(ctx, life, t)
		if err == nil {
			return c, life, nil
		}
		last = fmt.Errorf("connect to %s: %w", t.writer, err)
		if !pause(ctx, wait) {
			return nil, nil, last
		}
	}
}

// try dials t once. It does not wait for a former writer.
func (r *Router) try(ctx context.Context, life <-chan struct{}, t target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	go func() {
		select {
		case <-life:
			cancel()
		case <-ctx.Done():
		}
	}()
	return r.dial(ctx, t)
}

func (r *Router) dial(ctx context.Context, t target) (net.Conn, error) {
	if t.local {
		return new(net.Dialer).DialContext(ctx, "unix", r.cfg.Database)
	}
	d := tls.Dialer{NetDialer: dialer(), Config: mtls.Client(&r.source, t.writer, part.Router)}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(t.address, strconv.Itoa(r.cfg.TunnelPort)))
	if err != nil {
		return nil, err
	}
	if err := ask(ctx, c, t.epoch); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// The tunnel's preface: the caller sends the epoch, big-endian; the callee
// answers yes once mariadbd has taken the connection, or hangs up.
const (
	prefaceSize = 8
	yes         = 'Y'
)

func ask(ctx context.Context, c net.Conn, epoch int64) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	var preface [prefaceSize]byte
	binary.BigEndian.PutUint64(preface[:], uint64(epoch))
	if _, err := c.Write(preface[:]); err != nil {
		stop()
		return err
	}
	var answer [1]byte
	_, err := c.Read(answer[:])
	switch {
	case !stop():
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("its router hung up: %w", err)
	case answer[0] != yes:
		return fmt.Errorf("its router answered %q", answer[:])
	}
	return nil
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
