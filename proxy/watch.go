package proxy

import (
	"context"
	"sync"

	"trivet/proxy/upstream"
)

// watch is where an exchange learns that its client has gone, from whichever
// goroutine sees it first. The zero watch is ready.
type watch struct {
	mu     sync.Mutex
	gone   bool
	conn   *upstream.Conn          // that is to be interrupted
	ctx    context.Context         // made when asked for: it is the exchange's own life
	cancel context.CancelCauseFunc // of ctx
}

// leave tells that the client has gone.
func (w *watch) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
	if w.conn != nil {
		w.conn.Interrupt(ErrClientGone)
	}
	if w.cancel != nil {
		w.cancel(ErrClientGone)
	}
}

func (w *watch) left() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone
}

// use names the connection that is interrupted when the client goes; nil: none.
func (w *watch) use(c *upstream.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = c
	if c != nil && w.gone {
		c.Interrupt(ErrClientGone)
	}
}

func (w *watch) context() context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx == nil {
		w.ctx, w.cancel = context.WithCancelCause(context.Background())
		if w.gone {
			w.cancel(ErrClientGone)
		}
	}
	return w.ctx
}

// end makes w as new.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancel != nil {
		w.cancel(nil)
	}
	w.gone, w.conn, w.ctx, w.cancel = false, nil, nil, nil
}
