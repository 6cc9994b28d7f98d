package router

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// peer serves one connection of another server's router.
func (r *Router) peer(ctx context.Context, raw net.Conn) {
	select {
	case r.tunnelled <- struct{}{}:
		defer func() { <-r.tunnelled }()
	default:
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
	pipe(ctx, life, c, upstream)
}

func watch(c *net.TCPConn) {
	_ = c.SetKeepAliveConfig(keepAlive)
	if sc, err := c.SyscallConn(); err == nil {
		_ = userTimeout(sc)
	}
}

// admit verifies who calls and for which epoch, and connects to mariadbd. If
// the caller knows a newer epoch than this server, it waits to hear of it.
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
	epoch := int64(binary.BigEndian.Uint64(preface[:]))
	t, life, err := r.targets.wait(ctx, func(t target) bool { return t.epoch >= epoch })
	if err != nil || t.epoch != epoch || !t.local {
		return nil, nil, fmt.Errorf("asked for epoch %d; this is epoch %d and %q takes the writes", epoch, t.epoch, t.writer)
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
	return upstream, life, nil
}
