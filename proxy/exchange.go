// Package proxy is the forwarding engine that the balancer and the web server
// share: it speaks HTTP/1.1, 2 and 3 with clients (Server), hands each request
// to a handler (Exchange), and forwards it to a target of a pool (Forwarder).
//
// A connection that is being served has a goroutine that reads and writes, and
// buffers from a pool. One that waits for its next request for more than about
// a second has neither: its descriptor is parked on one epoll. Time limits are
// kept by one goroutine that looks at all active connections a few times each
// second, so that no request sets a timer or a deadline.
//
// The rules of trying a request again:
//   - one that never reached a target (it could not be connected to, or the
//     kernel took nothing of it) is tried on every other target, whatever its
//     method, as long as its body has not been read;
//   - a safe request without a body (GET, HEAD, OPTIONS) whose target broke or
//     answered nonsense is tried up to Settings.Retries times more, within the
//     pool's budget; one whose target was ejected under it is tried elsewhere
//     without counting;
//   - a safe request that was answered 502, 503 or 504 is tried once elsewhere,
//     if Settings.RetryStatus; the later answer counts, but the first is kept
//     should there be no later one;
//   - any other request is never sent twice;
//   - where no target can be chosen, a request that may still be sent waits up
//     to Settings.Patience for one.
//
// A small answer to a safe request is read whole before its head is passed
// on, so that a target that dies in the middle of it costs the visitor nothing.
//
// The package trusts no field that says where a request came from: the handler
// says by Forwarder.Keep and Exchange.Up what is forwarded.
package proxy

import (
	"context"
	"crypto/tls"
	"net/netip"
	"os"
	"time"

	"trivet/proxy/wire"
)

// Exchange is one request and its answer. It is handed to the Handler of a
// Server and must not be used after that, and Config.Done, returned.
type Exchange struct {
	Request *wire.Request
	Stream  Stream
	Client  netip.Addr // who asks: the peer, or what a trusted proxy says
	Peer    netip.AddrPort
	Secure  bool                 // by TLS or QUIC
	Server  string               // by SNI
	TLS     *tls.ConnectionState // nil: plain
	Begin   time.Time

	// ID, Trace and Span name the request: its own name, the trace that it
	// belongs to and this server's span in it (hexadecimal). The handler sets
	// them, pointing into Scratch or the request; the engine only forgets them.
	ID, Trace, Span []byte
	Unsampled       bool // who began the trace does not record it (W3C Trace Context, 3.2.2.5.1)
	// Local is the handler's own; the engine only forgets it.
	Local any

	// Out are fields of every final answer to this request, instead of those of
	// the same name that a target or Answer gives.
	Out []wire.Field
	// Stamp, if not nil, is called once before the head of the final answer is
	// put together: Target is known then, and it may still add to Out.
	Stamp func(*Exchange)
	// Up are fields added to the request as it is forwarded.
	Up []wire.Field
	// Scratch is room for values that must be built, see Append.
	Scratch []byte

	// Key, if HasKey, and Sticky choose the target, see upstream.Choice.
	Key    uint64
	HasKey bool
	Sticky string

	Status   int    // of the answer; 0 before it; 499: the client did not wait
	Sent     int64  // bytes of the answer's body
	Received int64  // bytes of the request's body
	Target   string // that answered, or was tried last; empty: none was tried
	Retries  int    // sendings after the first
	Broken   bool   // the answer broke off
	Tunnel   bool   // it has become a tunnel: status 101, or 200 by HTTP/2 and 3
	Err      error  // why the request failed, or the answer broke off
	Times    Timings

	limit    int64 // bytes of the request's body; 0: none
	watch    *watch
	server   *Server
	fields   []wire.Field // of the answer, while they are put together
	started  bool
	bodiless bool // the answer has no body, whatever is written
}

// Timings say where the time of an exchange went. All but Total are of the
// last target that was tried.
type Timings struct {
	Queue   time.Duration // waiting to be let into the pool, and for a target
	Connect time.Duration // opening a connection; 0: a kept one was used
	Send    time.Duration // writing the request; of a large body, its head alone
	Head    time.Duration // from then until the answer's head came
	Total   time.Duration // from Begin until all was over, once it is
}

// sender is a stream that can send a file without reading it.
type sender interface {
	SendFile(f *os.File, offset, n int64) (int64, error)
}

// Context ends when the client has gone or the exchange is over. It is made
// when it is first asked for.
func (x *Exchange) Context() context.Context { return x.watch.context() }

// Append lets f append to Scratch and returns what it appended.
func (x *Exchange) Append(f func(b []byte) []byte) []byte {
	n := len(x.Scratch)
	x.Scratch = f(x.Scratch)
	return x.Scratch[n:len(x.Scratch):len(x.Scratch)]
}

// Read reads the request's body, within Config.MaxBody.
func (x *Exchange) Read(p []byte) (int, error) {
	n, err := x.Stream.Read(p)
	x.Received += int64(n)
	if x.limit > 0 && x.Received > x.limit {
		return 0, ErrTooLarge
	}
	return n, err
}
