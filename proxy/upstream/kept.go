package upstream

import (
	"cmp"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	keptLimit   = 256                          // unused connections of one target
	looksFresh  = int64(50 * time.Millisecond) // with TLS, unused for less: not looked at, unless asked
	idleTimeout = 30 * time.Second             // of a TargetConfig without one
	reapEvery   = 5 * time.Second
)

// Plain says that it goes without TLS.
func (c *Conn) Plain() bool { return c.plain }

// Take returns a kept connection, the last used, or nil. A plain one is looked
// at first, for bytes beyond the last answer would be read as the next one. So
// is one that was unused for a while, and any one if fresh: for a request that
// may not be sent twice.
func (t *Target) Take(now int64, fresh bool) *Conn {
	for {
		t.mu.Lock()
		n := len(t.kept)
		if n == 0 {
			t.mu.Unlock()
			return nil
		}
		c := t.kept[n-1]
		t.kept[n-1] = nil
		t.kept = t.kept[:n-1]
		t.mu.Unlock()
		if (fresh || c.plain || now-c.used > looksFresh) && c.gone() {
			_ = c.Close()
			continue
		}
		c.reused = true
		return c
	}
}

// gone says whether the peer has closed the connection, or sent what nobody
// asked for. Under TLS that may be a session ticket, so there only the end counts.
func (c *Conn) gone() bool {
	if c.raw == nil {
		return false
	}
	return c.raw.Read(c.look) != nil || c.stale
}

// peek is c.look: it does not wait.
func (c *Conn) peek(fd uintptr) bool {
	c.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}
	n, err := unix.Poll(c.poll[:], 0)
	got := c.poll[0].Revents
	if c.plain {
		c.stale = err != nil || n > 0
	} else {
		c.stale = err != nil || got&^unix.POLLIN != 0
	}
	return true
}

// keep puts c with the unused, or hands it to whoever waits for one.
func (t *Target) keep(c *Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) > 0 && c.plain && c.reused && c.gone() {
		return false
	}
	if w := t.nextWaiting(); w != nil {
		w.got <- result{conn: c}
		return true
	}
	if State(t.state.Load()) == Down || t.retired.Load() || t.drained.Load() || len(t.kept) >= keptLimit {
		return false
	}
	t.kept = append(t.kept, c)
	if !t.reaping {
		t.reaping = true
		go t.reap()
	}
	return true
}

// closeKept closes the unused connections.
func (t *Target) closeKept() {
	t.mu.Lock()
	gone := t.kept
	t.kept = nil
	t.mu.Unlock()
	closeAll(gone)
}

// reap closes connections that were unused for too long, as long as there are any.
func (t *Target) reap() {
	for {
		time.Sleep(reapEvery)
		old, more := t.tooOld(Now())
		closeAll(old)
		if !more {
			return
		}
	}
}

// tooOld takes out what was unused for too long; the rest is younger.
func (t *Target) tooOld(now int64) (old []*Conn, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	limit := int64(cmp.Or(t.config.IdleTimeout, idleTimeout))
	n := 0
	for n < len(t.kept) && now-t.kept[n].used >= limit {
		n++
	}
	old = slices.Clone(t.kept[:n])
	t.kept = slices.Delete(t.kept, 0, n)
	t.reaping = len(t.kept) > 0
	return old, t.reaping
}

func closeAll(conns []*Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// enlist makes c one of the target's open connections.
func (t *Target) enlist(c *Conn) {
	c.index = len(t.open)
	t.open = append(t.open, c)
}

// forget takes c out of the open connections.
func (t *Target) forget(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := len(t.open) - 1
	t.open[c.index] = t.open[last]
	t.open[c.index].index = c.index
	t.open[last] = nil
	t.open = t.open[:last]
}
