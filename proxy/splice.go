package proxy

import (
	"errors"
	"syscall"

	"trivet/proxy/tunnel"
)

// Splices says that the client's connection is a plain socket.
func (t *turn) Splices() bool { return tunnel.Raw(t.c.net) != nil }

// Spill moves what h holds into the answer's body, in the kernel.
func (t *turn) Spill(h *tunnel.Hold) (moved int, err error) {
	a := &t.answer
	n := h.Len()
	if a.framing != frameKnown || int64(n) > a.left {
		return 0, errNoSplice
	}
	if err := a.flush(); err != nil {
		return 0, err
	}
	before := a.guard(n)
	moved, err = h.Drain(tunnel.Raw(t.c.net))
	a.left -= int64(moved)
	return moved, a.sent(before, moved, err)
}

// Splice moves n bytes of src into the answer's body, in the kernel.
func (t *turn) Splice(src syscall.RawConn, n int64) (moved int64, ours bool, err error) {
	a := &t.answer
	dst := tunnel.Raw(t.c.net)
	if dst == nil || a.framing != frameKnown || n > a.left {
		return 0, false, errNoSplice
	}
	if err := a.flush(); err != nil {
		return 0, true, err
	}
	moved, err = tunnel.Splice(dst, src, n, func(bytes int) { a.guard(bytes) })
	a.left -= moved
	if e, ok := errors.AsType[*tunnel.Error](err); ok && e.Write {
		a.err = err
		return moved, true, err
	}
	return moved, false, err
}
