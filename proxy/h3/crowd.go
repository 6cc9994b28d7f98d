package h3

import (
	"context"
	"errors"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// crowd are the connections of one socket. Each has an http3.Server of its own,
// since that cannot change what it tells visitors.
type crowd struct {
	mu   sync.Mutex
	all  map[*http3.Server]struct{}
	over sync.WaitGroup
}

// serve answers c by h until one of them ends.
func (k *crowd) serve(c *quic.Conn, h *http3.Server) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all == nil {
		k.all = map[*http3.Server]struct{}{}
	}
	k.all[h] = struct{}{}
	k.over.Go(func() {
		_ = h.ServeQUICConn(c) // why it ended is the visitor's matter
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.all, h)
	})
}

// shutdown tells all visitors to end, and waits until they have, or ctx ends.
// None comes any more.
func (k *crowd) shutdown(ctx context.Context) error {
	k.mu.Lock()
	errs := make(chan error, len(k.all))
	n := len(k.all)
	for h := range k.all {
		go func() { errs <- h.Shutdown(ctx) }()
	}
	k.mu.Unlock()
	var all []error
	for range n {
		all = append(all, <-errs)
	}
	k.over.Wait()
	return errors.Join(all...)
}
