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
	defer r.tunnelled.Add(-1)
	if r.tunnelled.Add(1) > 2*int64(r.gate.capacity()) {
		return
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		watch(tcp)
	}
	c := tls.Server(raw, r.accept)
	upstream, life, err := r.admit(ctx, c)
	if err != nil {
		r.log.Info("tunnel refused", "from", raw.RemoteAddr().String(), "err", err)
		return
	}
	if life != nil {
		r.writers.Add(1)
		defer r.writers.Add(-1)
	}
	pipe(ctx, life, c, upstream)
}

func watch(c *net.TCPConn) {
	_ = c.SetKeepAliveConfig(keepAlive)
	if sc, err := c.SyscallConn(); err == nil {
		_ = userTimeout(sc)
	}
}

// admit verifies who calls and for what, and connects to mariadbd. The channel
// is closed when the connection has to end; it is nil for one for reads.
func (r *Router) admit(ctx context.Context, c *tls.Conn) (net.Conn, <-chan struct{}, error) {
	ctx, cancel := context.WithTimeout(ctx, shakeTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}
	if err := c.SetDeadline(time.Now().Add(shakeTimeout)); err != nil {
		return nil, nil, err
	}
	var preface [prefaceSize]byte
	if _, err := io.ReadFull(c, preface[:]); err != nil {
		return nil, nil, fmt.Errorf("read preface: %w", err)
	}
	said := binary.BigEndian.Uint64(preface[:])
	a, err := r.permit(ctx, c, kind(said>>kindShift), int64(said&(1<<kindShift-1)))
	if err != nil {
		return nil, nil, err
	}
	upstream, err := new(net.Dialer).DialContext(ctx, "unix", r.cfg.Database)
	if err != nil {
		return nil, nil, err
	}
	if _, err = c.Write([]byte{yes}); err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
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
