package proxy

import (
	"errors"
	"syscall"

	"trivet/proxy/tunnel"
)

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
	moved, err = tunnel.SpliceWatched(dst, src, n, func(bytes int) { a.guard(bytes) })
	a.left -= moved
	if e, ok := errors.AsType[*tunnel.Error](err); ok && e.Write {
		a.err = err
		return moved, true, err
	}
	return moved, false, err
}
