package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trivet/proxy/socket"
)

// How long a peer may be silent. A dead one is noticed on connections that
// only listen, too: by probes after probeIdle, each probeEvery.
const (
	dialTimeout      = 500 * time.Millisecond
	handshakeTimeout = time.Second // of TLS with a target that accepted the connection
	probeIdle        = 5 * time.Second
	probeEvery       = 2 * time.Second
	probeCount       = 3
	userTimeout      = 15 * time.Second // for what was sent; an app may be slow to read, so not shorter
)

// openingLimit bounds how many connections to one target are opened at a time.
// Requests that find no kept connection then wait for whichever comes first, a
// new one or one that another request gives back. Without it a burst has each
// request pay for a handshake of its own, at the worst moment.
const openingLimit = 8

// Dialer returns a function that connects to address, as TargetConfig.Dial
// wants it. Network is "tcp" or "unix".
func Dialer(network, address string) func(context.Context) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout}
	if network != "unix" {
		d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: probeIdle, Interval: probeEvery, Count: probeCount}
		d.Control = limitSilence
	}
	return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, network, address) }
}

func limitSilence(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
	return errors.Join(err, set)
}

// result is what a waiter gets.
type result struct {
	conn *Conn
	err  error
}

// waiter waits for a connection.
type waiter struct{ got chan result }

// Dial returns a connection, a new one or one that was given back, whichever
// comes first. A target that could not be connected to (ErrRefused) is skipped
// and suspect; one that goes Down meanwhile is ErrEjected.
func (t *Target) Dial(ctx context.Context) (*Conn, error) {
	t.inFlight.Add(1)
	defer t.leave()
	w := &waiter{got: make(chan result, 1)}
	t.mu.Lock()
	if State(t.state.Load()) == Down {
		t.mu.Unlock()
		return nil, ErrEjected
	}
	t.waiting = append(t.waiting, w)
	t.openMore()
	t.mu.Unlock()
	select {
	case r := <-w.got:
		return r.conn, r.err
	case <-ctx.Done():
		t.abandon(w)
		return nil, context.Cause(ctx)
	}
}

// abandon is for a waiter that waits no more. What it was given already is kept.
func (t *Target) abandon(w *waiter) {
	t.mu.Lock()
	if i := slices.Index(t.waiting, w); i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
	}
	t.mu.Unlock()
	select {
	case r := <-w.got:
		if r.conn != nil && !t.keep(r.conn) {
			_ = r.conn.Close()
		}
	default:
	}
}

// openMore opens as many connections as are awaited, within the limit. t.mu is held.
func (t *Target) openMore() {
	for t.opening < min(openingLimit, len(t.waiting)) {
		t.opening++
		go t.openOne()
	}
}

func (t *Target) openOne() {
	c, err := t.connect(context.Background())
	t.mu.Lock()
	t.opening--
	if err != nil {
		t.openFailed(err)
		t.openMore()
		t.mu.Unlock()
		t.refused()
		return
	}
	t.enlist(c)
	t.mu.Unlock()
	if !t.keep(c) {
		_ = c.Close()
	}
	t.mu.Lock()
	t.openMore()
	t.mu.Unlock()
}

// openFailed tells one waiter, and all of them when no other opening could still succeed. t.mu is held.
func (t *Target) openFailed(err error) {
	if t.opening == 0 {
		t.failWaiting(err)
	} else if w := t.nextWaiting(); w != nil {
		w.got <- result{err: err}
	}
}

// failWaiting tells all who wait for a connection. t.mu is held.
func (t *Target) failWaiting(err error) {
	for _, w := range t.waiting {
		w.got <- result{err: err}
	}
	t.waiting = nil
}

// nextWaiting takes out who waited longest, or returns nil. t.mu is held.
func (t *Target) nextWaiting() *waiter {
	if len(t.waiting) == 0 {
		return nil
	}
	w := t.waiting[0]
	t.waiting[0] = nil
	t.waiting = t.waiting[1:]
	return w
}

// refused is what follows from a target that could not be connected to.
func (t *Target) refused() {
	t.failures.Add(1)
	p := t.pool.Load()
	if p == nil {
		return
	}
	if d := p.Settings().SkipRefused; d > 0 {
		t.Skip(d)
	} else {
		t.countError(p)
	}
	p.suspect(t)
}

// connect opens a connection that nobody knows of yet.
func (t *Target) connect(ctx context.Context) (*Conn, error) {
	limited, cancel := context.WithTimeout(ctx, dialTimeout)
	raw, err := t.config.Dial(limited)
	cancel()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	c := &Conn{Conn: raw, target: t, plain: t.config.TLS == nil, used: Now()}
	c.look = c.peek
	if s, ok := raw.(syscall.Conn); ok {
		c.raw, _ = s.SyscallConn()
	}
	if c.plain {
		c.socket.Use(socket.Of(raw))
		return c, nil
	}
	secure := tls.Client(socket.Wrap(raw), t.config.TLS)
	_ = raw.SetDeadline(time.Now().Add(handshakeTimeout))
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	_ = raw.SetDeadline(time.Time{})
	c.Conn = secure
	return c, nil
}
