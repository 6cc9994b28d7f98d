package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// AcceptAll calls take with each connection that comes to l, until ctx ends: nil.
// A listener that somebody else closes is an error. A lack of descriptors, or
// a client that went before it was accepted, passes.
func AcceptAll(ctx context.Context, l net.Listener, take func(net.Conn)) error {
	for wait := time.Duration(0); ; {
		c, err := l.Accept()
		switch {
		case err == nil:
			wait = 0
			take(c)
			continue
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		wait = min(max(5*time.Millisecond, 2*wait), time.Second)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}
