package router

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// peer serves one connection of another server's router.
func (r *Router) peer(ctx context.Context, raw net.Conn) {
	defer r.callers.Add(-1)
	if r.callers.Add(1) > 2*int64(r.gate.capacity()) {
		return
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		notice(tcp)
	}
	c := tls.Server(raw, r.accept)
	if err := r.converse(ctx, c); err != nil {
		r.log.Info("tunnel refused", "from", raw.RemoteAddr().String(), "err", err)
	}
}

// converse does what the caller asks for.
func (r *Router) converse(ctx context.Context, c *tls.Conn) error {
	k, epoch, err := r.hello(ctx, c)
	if err != nil {
		return err
	}
	if k == kindWatch {
		if err := agree(c); err != nil {
			return err
		}
		r.inform(ctx, c, epoch)
		return nil
	}
	upstream, life, err := r.admit(ctx, c, k, epoch)
	if err != nil {
		return err
	}
	r.tunnelled.Add(1)
	defer r.tunnelled.Add(-1)
	if k == kindWrite {
		r.writers.Add(1)
		defer r.writers.Add(-1)
	}
	pipe(ctx, life, c, upstream)
	return nil
}

// notice has the kernel find out when the peer's machine is gone.
func notice(c *net.TCPConn) {
	_ = c.SetKeepAliveConfig(keepAlive)
	if sc, err := c.SyscallConn(); err == nil {
		_ = userTimeout(sc)
	}
}

// hello verifies who calls, and reads for what.
func (r *Router) hello(ctx context.Context, c *tls.Conn) (kind, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, shakeTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return 0, 0, err
	}
	if err := c.SetDeadline(time.Now().Add(2 * shakeTimeout)); err != nil {
		return 0, 0, err
	}
	var preface [prefaceSize]byte
	if _, err := io.ReadFull(c, preface[:]); err != nil {
		return 0, 0, fmt.Errorf("read preface: %w", err)
	}
	said := binary.BigEndian.Uint64(preface[:])
	return kind(said >> kindShift), int64(said & (1<<kindShift - 1)), nil
}

// agree says yes to the caller, whose time is its own from then on.
func agree(c net.Conn) error {
	if _, err := c.Write([]byte{yes}); err != nil {
		return err
	}
	return c.SetDeadline(time.Time{})
}

// admit connects to mariadbd, if the caller may. The channel is closed when
// the connection has to end; it is nil for one for reads.
func (r *Router) admit(ctx context.Context, c *tls.Conn, k kind, epoch int64) (net.Conn, <-chan struct{}, error) {
	ctx, cancel := context.WithTimeout(ctx, shakeTimeout)
	defer cancel()
	a, err := r.permit(ctx, c, k, epoch)
	if err != nil {
		return nil, nil, err
	}
	upstream, err := new(net.Dialer).DialContext(ctx, "unix", r.cfg.Database)
	if err != nil {
		return nil, nil, err
	}
	if err := agree(c); err != nil {
		_ = upstream.Close()
		return nil, nil, err
	}
	return upstream, a.life, nil
}

var errNotSynced = errors.New("asked for reads; the database of this server is not synced")

// permit says whether the caller may go on. If it knows a newer epoch than
// this server, it waits until this one has heard of it; if an older, it is told.
func (r *Router) permit(ctx context.Context, c net.Conn, k kind, epoch int64) (aim, error) {
	switch k {
	case kindRead:
		// Such a connection may outlive the moment: the database says by itself when it may not answer.
		if a, _ := r.own.now(); a.server == "" {
			return aim{}, errNotSynced
		}
		return aim{}, nil
	case kindWrite:
	default:
		return aim{}, fmt.Errorf("asked for kind %d, which is not known here", k)
	}
	a, err := r.writes.wait(ctx, func(t target) bool { return t.epoch >= epoch })
	if err == nil && a.epoch == epoch && a.places != nil && a.places[0].local {
		return a, nil
	}
	if a.epoch > epoch {
		_, _ = c.Write(news{a.epoch, a.server}.append(nil))
	}
	return aim{}, fmt.Errorf("asked for epoch %d; this is epoch %d and %q takes the writes", epoch, a.epoch, a.server)
}
