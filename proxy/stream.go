package proxy

import "trivet/proxy/wire"

// Stream is the client's half of one exchange: a turn of an HTTP/1.1
// connection, or a stream of HTTP/2 or 3. Its methods are called by one
// goroutine at a time, but for Read and Trailer, which may run beside the others.
type Stream interface {
	// Read reads the request's body; io.EOF at its end. The first Read sends
	// 100 Continue to a client that awaits it. After End or Abort it fails, and
	// so does a Read that is under way.
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
