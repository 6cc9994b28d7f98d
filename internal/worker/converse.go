package worker

import (
	"context"
	"encoding/json"
	"errors"
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
		wg.Go(func() { w.converse(ctx, newConn(c)) })
	}
}

// converse reads one connection to its end.
func (w *Worker) converse(ctx context.Context, c *conn) {
	stop := context.AfterFunc(ctx, func() { _ = c.c.Close() })
	defer stop()
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
		_ = c.send(message{Answer: w.answer(ctx, *m.Call)})
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

func (w *Worker) answer(ctx context.Context, c callMessage) *answerMessage {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	a := &answerMessage{ID: c.ID}
	if w.cfg.Answer == nil {
		a.Error = "no questions are answered here"
		return a
	}
	v, err := w.cfg.Answer(ctx, c.Method, c.Body)
	if err == nil {
		a.Body, err = json.Marshal(v)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
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
