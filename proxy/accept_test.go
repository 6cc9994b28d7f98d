package proxy_test

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"

	"trivet/proxy"
)

// script is a listener that returns what was written down for it.
type script struct {
	net.Listener
	steps []error // nil: a connection; after the last, whatever end does, and net.ErrClosed
	end   func()
}

func (s *script) Accept() (net.Conn, error) {
	if len(s.steps) == 0 {
		s.end()
		return nil, net.ErrClosed
	}
	err := s.steps[0]
	s.steps = s.steps[1:]
	if err != nil {
		return nil, err
	}
	c, _ := net.Pipe()
	return c, nil
}

func (s *script) Addr() net.Addr { return &net.TCPAddr{} }

func TestAcceptAll(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	steps := []error{nil, syscall.EMFILE, syscall.ECONNABORTED, nil}
	taken := 0
	take := func(c net.Conn) { taken++; _ = c.Close() }
	if err := proxy.AcceptAll(ctx, &script{steps: steps, end: func() {}}, take); taken != 2 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed by another: got %d connections, %v; want 2, %v", taken, err, net.ErrClosed)
	}
	if err := proxy.AcceptAll(ctx, &script{steps: steps, end: cancel}, take); taken != 4 || err != nil {
		t.Errorf("at the end: got %d connections, %v; want 4, nil", taken, err)
	}
}
