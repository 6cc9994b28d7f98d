package h3

import (
	"context"
	"crypto/tls"
	"sync/atomic"

	"github.com/quic-go/quic-go"
)

// meeting is a connection's handshake. taken says that somebody tells how it ends.
type meeting struct{ taken atomic.Bool }

type meetingKey struct{}

// meet tells of a handshake that fails before anything is known of its
// connection but the context.
func (s *Server) meet(ctx context.Context) context.Context {
	m := new(meeting)
	context.AfterFunc(ctx, func() {
		if !m.taken.Swap(true) {
			s.cfg.Handshake(nil, context.Cause(ctx))
		}
	})
	return context.WithValue(ctx, meetingKey{}, m)
}

// met waits for the end of c's handshake and tells how it was.
func (s *Server) met(ctx context.Context, c *quic.Conn) {
	m, ok := ctx.Value(meetingKey{}).(*meeting)
	if !ok || m.taken.Swap(true) {
		return
	}
	select {
	case <-c.HandshakeComplete():
	case <-ctx.Done():
	}
	state := c.ConnectionState().TLS
	if state.HandshakeComplete {
		s.cfg.Handshake(&state, nil)
	} else {
		s.cfg.Handshake(nil, context.Cause(ctx))
	}
}

// unheard is Config.Handshake where nobody wants to know.
func unheard(*tls.ConnectionState, error) {}
