// Package proxy is the forwarding engine that the balancer and the web server
// share: it speaks HTTP/1.1, 2 and 3 with clients, and forwards to targets.
package proxy

import (
	"net/netip"
	"time"

	"trivet/proxy/wire"
)

// Stream is the client's half of one exchange: a turn of an HTTP/1.1
// connection, or a stream of HTTP/2 or 3. Its methods are called by one
// goroutine at a time, but for Read, which may run beside the others.
type Stream interface {
	// Read reads the request's body; io.EOF at its end. The first Read sends
	// 100 Continue to a client that awaits it.
	Read(p []byte) (int, error)
	// Trailer is what followed the body, once Read has returned io.EOF.
	Trailer() []wire.Field
	// Head begins an answer, or sends an interim one (1xx, but for 101). The
	// fields are sent as they are, after the framing, which is the stream's own
	// (Kinds up to Expect are left out). length is the body's; -1: not known.
	// It may be held back until Write, Flush or End.
	Head(status int, fields []wire.Field, length int64) error
	// Write sends a part of the answer's body. It has been taken in when Write returns.
	Write(p []byte) (int, error)
	// Flush sends what is held back.
	Flush() error
	// End ends the answer.
	End(trailer []wire.Field) error
	// Abort breaks the answer off, so that the client sees that it is not whole.
	Abort()
}

// Exchange is one request and its answer. It is handed to the Handler of a
// Server and must not be used after that returned.
type Exchange struct {
	Request  *wire.Request
	Stream   Stream
	Client   netip.Addr // who asks: the peer, or what a trusted proxy says
	Peer     netip.AddrPort
	Secure   bool   // by TLS or QUIC
	Server   string // by SNI
	Begin    time.Time
	Status   int   // of the answer; 0 before it
	Sent     int64 // bytes of the answer's body
	Received int64 // bytes of the request's body
}
