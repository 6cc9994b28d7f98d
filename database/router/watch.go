package router

import (
	"context"
	"net"
	"time"
)

// Between two routers there is, besides the tunnels, one connection by which
// the writer's tells the other of newer epochs, and by whose end it says that
// it is leaving: tunnels made from then on lead to its successor.

const (
	watchPause = time.Second            // between two tries to have such a connection
	watchSoon  = 100 * time.Millisecond // after one has ended
)

// watch listens to the router of whichever server takes the writes, if that is another one.
func (r *Router) watch(ctx context.Context) {
	for {
		a, err := r.writes.wait(ctx, func(t target) bool { return t.server != "" && !t.places[0].local })
		if err != nil {
			return
		}
		again := watchPause
		if r.listen(ctx, a) {
			again = watchSoon
			r.log.Info("the writer's router leaves", "server", a.server)
			r.writes.renew()
			r.sessions.each((*session).revise)
		}
		if !pauseOr(ctx, again, a.life) {
			return
		}
	}
}

// listen takes the news of the router at a. It reports whether that router,
// which had answered, has left.
func (r *Router) listen(ctx context.Context, a aim) bool {
	ctx, cancel := during(ctx, a.life)
	defer cancel()
	trying, stop := context.WithTimeout(ctx, attempt)
	c, err := r.dial(trying, a, a.places[0], kindWatch)
	stop()
	if err != nil {
		return false
	}
	defer context.AfterFunc(ctx, func() { _ = hard(c).Close() })()
	defer func() { _ = hard(c).Close() }()
	for {
		var head [1]byte
		if err := readFull(c, head[:]); err != nil || head[0] != no {
			return ctx.Err() == nil
		}
		n, err := readNews(c)
		if err != nil {
			return ctx.Err() == nil
		}
		r.hear(n)
	}
}

// inform tells a caller of each newer epoch, until either leaves.
func (r *Router) inform(ctx context.Context, c net.Conn, epoch int64) {
	ctx, cancel := during(ctx, r.leaving)
	defer cancel()
	go func() {
		_, _ = c.Read(make([]byte, 1)) // it says nothing: this is its end
		cancel()
	}()
	for {
		a, err := r.writes.wait(ctx, func(t target) bool { return t.epoch > epoch })
		if err != nil {
			return
		}
		epoch = a.epoch
		if err := c.SetWriteDeadline(time.Now().Add(shakeTimeout)); err != nil {
			return
		}
		if _, err := c.Write(news{a.epoch, a.server}.append(nil)); err != nil {
			return
		}
	}
}

// during is ctx until end is closed.
func during(ctx context.Context, end <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-end:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
