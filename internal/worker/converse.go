package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"trivet/internal/process"
)

// accept serves the worker's connections, one at a time: a newer one replaces the older.
func (w *Worker) accept(ctx context.Context, l net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	back := process.Backoff{Min: 10 * time.Millisecond, Max: time.Second}
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor is free, or the like: it passes
			if back.Wait(ctx) != nil {
				return
			}
			continue
		}
		back.Reset()
		wg.Go(func() { w.converse(ctx, newConn(c, w.answer)) })
	}
}

// converse reads one connection to its end.
func (w *Worker) converse(ctx context.Context, c *conn) {
	stop := context.AfterFunc(ctx, func() { _ = c.c.Close() })
	defer stop()
	defer c.end()
	defer w.disconnect(c)
	w.connect(c)
	for {
		m, err := c.receive()
		if err != nil {
			return
		}
		w.handle(ctx, c, m)
	}
}

// connect makes c the current connection and sends it the newest state.
func (w *Worker) connect(c *conn) {
	w.mu.Lock()
	old := w.conn
	w.conn = c
	w.mu.Unlock()
	if old != nil {
		_ = old.c.Close()
	}
	w.pushTo(c)
}

func (w *Worker) disconnect(c *conn) {
	_ = c.c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn == c {
		w.conn = nil
	}
}

func (w *Worker) handle(ctx context.Context, c *conn, m message) {
	w.mu.Lock()
	w.heard = time.Now()
	w.mu.Unlock()
	switch {
	case m.Applied != nil:
		w.confirm(*m.Applied)
	case m.Health != nil:
		w.report(m.Health.Problem)
	case m.Call != nil:
		c.asked.take(ctx, c, *m.Call)
	case m.Answer != nil:
		c.calls.answered(m.Answer)
	}
}

// confirm leaves the newest confirmation for await, dropping one nobody read.
func (w *Worker) confirm(a appliedMessage) {
	select {
	case <-w.applied:
	default:
	}
	select {
	case w.applied <- a:
	default:
	}
	if a.Error != "" {
		w.cfg.Log.Error("worker refused state", "worker", w.cfg.Name, "err", a.Error)
	}
}

// answer serves a question of the worker's.
func (w *Worker) answer(ctx context.Context, method string, body json.RawMessage) (any, error) {
	if w.cfg.Answer == nil {
		return nil, errors.New("no questions are answered here")
	}
	return w.cfg.Answer(ctx, method, body)
}

// Inspect returns what the part says of itself, as JSON; see part.Inspector.
func (w *Worker) Inspect(ctx context.Context) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectLimit)
	defer cancel()
	w.mu.Lock()
	c := w.conn
	w.mu.Unlock()
	if c == nil {
		return nil, fmt.Errorf("inspect worker %s: it is not running", w.cfg.Name)
	}
	body, err := c.calls.ask(ctx, c, callInspect, nil)
	if err != nil {
		return nil, fmt.Errorf("inspect worker %s: %w", w.cfg.Name, err)
	}
	return body, nil
}

// report notes the worker's health and tells node when it changed.
func (w *Worker) report(problem string) {
	w.mu.Lock()
	changed := w.problem != problem
	w.problem = problem
	w.mu.Unlock()
	if changed && w.cfg.Changed != nil {
		w.cfg.Changed()
	}
}
