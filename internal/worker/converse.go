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

// accept serves the connections of the worker's processes, one of each: a newer one replaces the older.
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

// converse reads one connection to its end. Whose it is the kernel says; one
// that is not of a process that is known here is closed.
func (w *Worker) converse(ctx context.Context, c *conn) {
	defer c.end()
	stop := context.AfterFunc(ctx, func() { _ = c.c.Close() })
	defer stop()
	pid, err := peer(c.c)
	i := w.find(pid)
	if err != nil || i == nil {
		return
	}
	defer w.disconnect(i, c)
	w.connect(i, c)
	for {
		m, err := c.receive()
		if err != nil {
			return
		}
		w.handle(ctx, i, c, m)
	}
}

// connect makes c the connection of i and sends it what it lacks.
func (w *Worker) connect(i *instance, c *conn) {
	w.mu.Lock()
	old := i.conn
	i.conn = c
	feed, turn := i == w.current || i == w.next, i.turn
	w.mu.Unlock()
	if old != nil {
		_ = old.c.Close()
	}
	if turn {
		_ = c.send(message{Turn: &struct{}{}})
	}
	if feed {
		w.pushTo(c)
	}
}

func (w *Worker) disconnect(i *instance, c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i.conn == c {
		i.conn = nil
	}
}

func (w *Worker) handle(ctx context.Context, i *instance, c *conn, m message) {
	w.mu.Lock()
	i.heard = time.Now()
	w.mu.Unlock()
	switch {
	case m.Applied != nil:
		w.took(i, *m.Applied)
	case m.Health != nil:
		w.report(i, m.Health.Problem)
	case m.Yielded != nil:
		w.yielded(i)
	case m.Call != nil:
		c.asked.take(ctx, c, *m.Call)
	case m.Answer != nil:
		c.calls.answered(m.Answer)
	}
}

// took notes what i did with a state; what the one in charge says is the worker's word.
func (w *Worker) took(i *instance, a appliedMessage) {
	w.mu.Lock()
	i.applied, i.refused = a.Seq, a.Error
	first := i == w.current
	w.mu.Unlock()
	w.stir()
	if first {
		w.confirm(a)
	}
}

// yielded notes that i has given way.
func (w *Worker) yielded(i *instance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !i.gone {
		i.gone = true
		close(i.yielded)
	}
}

// stir has a hand-over look whether it can go on.
func (w *Worker) stir() {
	select {
	case w.stirred <- struct{}{}:
	default:
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
	var c *conn
	if w.current != nil {
		c = w.current.conn
	}
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

// report notes the health of i, and tells node when that of the worker changed:
// that is what the process in charge says, or what keeps there from being one (nil).
func (w *Worker) report(i *instance, problem string) {
	w.mu.Lock()
	if i != nil {
		i.problem = problem
	}
	changed := i == w.current && w.problem != problem
	if changed {
		w.problem = problem
	}
	w.mu.Unlock()
	w.stir()
	if changed && w.cfg.Changed != nil {
		w.cfg.Changed()
	}
}
