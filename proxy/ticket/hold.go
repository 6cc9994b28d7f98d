package ticket

import (
	"crypto/tls"
	"net"
	"sync/atomic"
)

// Handshake meets a visitor on c. The session ticket of TLS 1.3, which
// crypto/tls writes at the end of the handshake, goes out together with what is
// written next: one system call and one packet less for each connection. A
// visitor who gets no answer gets no ticket either. c's deadlines hold; the
// caller closes c after an error.
func Handshake(c net.Conn, cfg *tls.Config) (*tls.Conn, error) {
	h := &holding{Conn: c}
	s := tls.Server(h, cfg)
	err := s.Handshake()
	h.over.Store(true)
	if err != nil {
		_, _ = h.Write(nil) // an alert; the visitor may have gone
		return nil, err
	}
	return s, nil
}

// holding holds back what crypto/tls writes encrypted before the handshake is
// over: the ticket, or an alert. Its first flight begins in the clear.
type holding struct {
	net.Conn
	over atomic.Bool
	none atomic.Bool // nothing is held back any more
	held []byte
}

const applicationData = 23 // the type of an encrypted record

// Write is called by crypto/tls under a lock of its own.
func (h *holding) Write(p []byte) (int, error) {
	if h.none.Load() {
		return h.Conn.Write(p)
	}
	if !h.over.Load() {
		if len(p) > 0 && p[0] == applicationData {
			h.held = append(h.held, p...)
			return len(p), nil
		}
		return h.Conn.Write(p)
	}
	h.none.Store(true)
	held := h.held
	h.held = nil
	if len(held) == 0 {
		return h.Conn.Write(p)
	}
	both := net.Buffers{held, p}
	n, err := both.WriteTo(h.Conn)
	return max(int(n)-len(held), 0), err
}
