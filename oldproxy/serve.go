package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve answers on l, by TLS if srv has a TLSConfig, until ctx ends. Then it
// stops accepting, gives the requests under way up to grace to end, ends the
// tunnels, and returns nil when no handler runs any more. It closes l; a
// duplicate of l in another process keeps the queue of connections.
func Serve(ctx context.Context, srv *http.Server, l net.Listener, grace time.Duration) error {
	base, endTunnels := context.WithCancel(context.WithoutCancel(ctx))
	defer endTunnels()
	running := &crowd{}
	srv.Handler = running.around(srv.Handler)
	srv.BaseContext = func(net.Listener) context.Context { return base }

	served := make(chan error, 1)
	go func() { served <- listen(srv, l) }()
	select {
	case err := <-served:
		_ = srv.Close()
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	drain(base, srv, grace)
	endTunnels()
	<-running.left()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

func listen(srv *http.Server, l net.Listener) error {
	if srv.TLSConfig != nil {
		return srv.ServeTLS(l, "", "")
	}
	return srv.Serve(l)
}

// drain waits for ordinary requests; what is not done then is cut off.
func drain(base context.Context, srv *http.Server, grace time.Duration) {
	ctx, cancel := context.WithTimeout(base, grace)
	defer cancel()
	if srv.Shutdown(ctx) != nil {
		_ = srv.Close()
	}
}

// crowd counts running handlers, those of tunnels too, which a server forgets.
type crowd struct {
	mu    sync.Mutex
	n     int
	empty chan struct{} // made by left
}

func (c *crowd) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.add(1)
		defer c.add(-1)
		next.ServeHTTP(w, r)
	})
}

func (c *crowd) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
	if c.n == 0 && c.empty != nil {
		close(c.empty)
		c.empty = nil
	}
}

// left returns a channel that is closed when nobody runs.
func (c *crowd) left() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan struct{})
	if c.n == 0 {
		close(ch)
		return ch
	}
	c.empty = ch
	return ch
}
