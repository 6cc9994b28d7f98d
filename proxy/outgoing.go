package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"trivet/proxy/h2"
	"trivet/proxy/h3"
	"trivet/proxy/upstream"
	"trivet/proxy/wire"
)

// smallBody is the length up to which a request's body is read whole before it
// is sent: so a slow client holds no target, and head and body go in one write.
const smallBody = 16 << 10

// outgoing is the request as it goes to a target.
type outgoing struct {
	journey *journey
	hold    *block
	head    []byte
	small   *block // a small body
	body    []byte // in it
	vec     [2][]byte
	bufs    net.Buffers

	// A body that is sent while the answer is awaited.
	touched bool // it has been read from, and is not at hand
	feeding bool
	fed     chan struct{} // closed when that has ended
	mu      sync.Mutex
	sent    bool // all of it
	came    bool // the answer's head
}

func (o *outgoing) begin() {
	o.touched, o.feeding, o.sent, o.came = false, false, false, false
}

func (o *outgoing) end() {
	o.abandon()
	o.hold.give()
	o.small.give()
	o.hold, o.small, o.head, o.body = nil, nil, nil, nil
}

// abandon gives up a connection that is still there at the end: something
// panicked. Who feeds it may not use the exchange any longer.
func (o *outgoing) abandon() {
	j := o.journey
	if j.conn == nil {
		return
	}
	j.exchange.Stream.Abort()
	j.conn.Interrupt(errAnswered)
	if o.feeding {
		<-o.fed
	}
	j.release(upstream.Cancelled, false)
}

// prepare writes the head, and reads a small body.
func (o *outgoing) prepare() error {
	r := o.journey.exchange.Request
	o.hold = takeBlock(smallBlock)
	o.head = o.journey.appendHead(o.hold.b[:0])
	if r.Length <= 0 || r.Length > smallBody || o.journey.switching() != nil {
		return nil
	}
	o.small = takeBlock(middleBlock)
	n := 0
	for n < int(r.Length) {
		k, err := o.journey.exchange.Read(o.small.b[n:r.Length])
		n += k
		if err != nil && n < int(r.Length) {
			return clientFault(err)
		}
	}
	o.body = o.small.b[:n]
	return nil
}

// clientFault makes sure that err counts as the client's.
func clientFault(err error) error {
	switch {
	case errors.Is(err, ErrClientBody), errors.Is(err, ErrClientSlow), errors.Is(err, ErrTooLarge), errors.Is(err, ErrClientGone):
		return err
	case errors.Is(err, h2.ErrStill), errors.Is(err, h3.ErrStill):
		return errors.Join(ErrClientSlow, err)
	}
	return errors.Join(ErrClientBody, err)
}

// send writes the request, and says whether the target may have got something of it.
func (o *outgoing) send() (sent bool, err error) {
	j := o.journey
	if n, err := o.write(); err != nil {
		return n > 0, err
	}
	if j.exchange.Request.Length != 0 && o.body == nil && j.switching() == nil {
		o.touched, o.feeding = true, true
		o.fed = make(chan struct{})
		go o.feed(o.fed)
	}
	return true, nil
}

// write writes the head, with the body if that is at hand.
func (o *outgoing) write() (int64, error) {
	conn := o.journey.conn
	if len(o.body) == 0 {
		n, err := conn.Write(o.head)
		return int64(n), err
	}
	o.vec = [2][]byte{o.head, o.body}
	o.bufs = o.vec[:]
	return o.bufs.WriteTo(conn.Conn)
}

// complete says whether the target got the whole request.
func (o *outgoing) complete() bool { return !o.feeding || o.sent }

// stuck is how long a target may take nothing of a request that it has answered.
const stuck = 100 * time.Millisecond

// join waits until nobody reads the client's body any more. The answer has
// ended by then, and with it the reading; a write may have to be interrupted.
func (o *outgoing) join() {
	if !o.feeding {
		return
	}
	timer := time.NewTimer(stuck)
	defer timer.Stop()
	select {
	case <-o.fed:
	case <-timer.C:
		o.journey.conn.Interrupt(errAnswered)
		<-o.fed
	}
}

// headCame tells that the answer is there, before the request's end perhaps.
func (o *outgoing) headCame() {
	if !o.feeding {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.came = true
}

// feed copies the body to the target.
func (o *outgoing) feed(done chan struct{}) {
	defer close(done)
	conn := o.journey.conn
	err := o.copyBody(conn)
	if err != nil {
		if err != errTarget && !answered(err) {
			conn.Interrupt(clientFault(err))
		}
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent = true
	if !o.came {
		conn.Await(upstream.Now())
	}
}

// answered says that a body could not be read because nobody wants it any more.
func answered(err error) bool {
	return errors.Is(err, errAnswered) || errors.Is(err, h2.ErrEnded) || errors.Is(err, h3.ErrEnded)
}

// errTarget is a target that takes no more of the body: it may have answered.
var errTarget = errors.New("target takes no more of the request")

func (o *outgoing) copyBody(conn *upstream.Conn) error {
	x := o.journey.exchange
	b := takeBlock(middleBlock)
	defer b.give()
	const front, back = 8, 2 // of a chunk
	for {
		n, err := x.Read(b.b[front : len(b.b)-back])
		if n > 0 {
			p := b.b[front : front+n]
			if x.Request.Length < 0 {
				p = frameChunk(b.b, front, n)
			}
			if _, err := conn.Write(p); err != nil {
				return errTarget
			}
		}
		if err == io.EOF {
			return o.endBody(conn)
		}
		if err != nil {
			return err
		}
	}
}

// frameChunk writes a chunk's frame around the n bytes of b from front on.
func frameChunk(b []byte, front, n int) []byte {
	var room [8]byte
	head := wire.AppendChunkHead(room[:0], n)
	copy(b[front-len(head):], head)
	copy(b[front+n:], crlf)
	return b[front-len(head) : front+n+len(crlf)]
}

func (o *outgoing) endBody(conn *upstream.Conn) error {
	x := o.journey.exchange
	if x.Request.Length >= 0 {
		return nil
	}
	var room [512]byte
	if _, err := conn.Write(wire.AppendTrailer(room[:0], o.trailer())); err != nil {
		return errTarget
	}
	return nil
}

// trailer is what followed the body and may be forwarded: some targets take it
// for part of the head.
func (o *outgoing) trailer() []wire.Field {
	trailer, keep := o.journey.exchange.Stream.Trailer(), o.journey.forwarder.Keep
	if keep == nil {
		return trailer
	}
	var kept []wire.Field
	for i := range trailer {
		if keep(&trailer[i]) {
			kept = append(kept, trailer[i])
		}
	}
	return kept
}

var (
	hostName       = []byte("Host")
	cookieName     = []byte("Cookie")
	getMethod      = []byte("GET")
	rootPath       = []byte("/")
	connectionTE   = []byte("TE: trailers\r\nConnection: TE\r\n")
	connectionUpTo = []byte("Connection: Upgrade\r\nUpgrade: ")
)

// appendHead writes the request's head as the target gets it.
func (j *journey) appendHead(b []byte) []byte {
	x := j.exchange
	r := x.Request
	method, path := r.Method, r.Path
	if len(r.Protocol) > 0 {
		method = getMethod // RFC 8441, 5: a CONNECT of HTTP/2 is an Upgrade of HTTP/1.1
	}
	if len(path) == 0 {
		path = rootPath
	}
	b = wire.AppendRequestLine(b, method, path)
	b = wire.AppendField(b, hostName, r.Host)
	b = j.appendFields(b)
	for i := range x.Up {
		b = wire.AppendField(b, x.Up[i].Name, x.Up[i].Value)
	}
	return wire.AppendEnd(j.appendOwn(b))
}

// appendFields writes what the client said and may be forwarded.
func (j *journey) appendFields(b []byte) []byte {
	r, keep := j.exchange.Request, j.forwarder.Keep
	cookies := false
	for i := range r.Fields {
		f := &r.Fields[i]
		switch {
		case f.Kind.Framing() || keep != nil && !keep(f):
		case f.Kind == wire.Cookie && r.Major > 1:
			if !cookies {
				cookies = true
				b = appendCookies(b, r.Fields[i:])
			}
		default:
			b = wire.AppendField(b, f.Name, f.Value)
		}
	}
	return b
}

// appendCookies writes all cookies as one field (RFC 9113, 8.2.3).
func appendCookies(b []byte, fields []wire.Field) []byte {
	b = append(append(b, cookieName...), ": "...)
	for i := range fields {
		if fields[i].Kind != wire.Cookie {
			continue
		}
		if i > 0 {
			b = append(b, "; "...)
		}
		b = append(b, fields[i].Value...)
	}
	return append(b, crlf...)
}

// appendOwn writes the fields that are this hop's.
func (j *journey) appendOwn(b []byte) []byte {
	r := j.exchange.Request
	up := j.switching()
	switch {
	case up != nil:
		b = appendUpgrade(b, up)
		if len(r.Protocol) > 0 {
			b = appendWebSocketKey(b)
		}
	case r.Length > 0:
		b = wire.AppendLength(b, r.Length)
	case r.Length < 0:
		b = wire.AppendChunked(b)
	case bodyMethod(r.Method):
		b = wire.AppendLength(b, 0)
	}
	if r.Trailers {
		b = append(b, connectionTE...)
	}
	return b
}

func appendUpgrade(b, protocol []byte) []byte {
	b = append(b, connectionUpTo...)
	b = append(b, protocol...)
	return append(b, crlf...)
}

// bodyMethod says that a request without a body should say so (RFC 9110, 8.6).
func bodyMethod(m []byte) bool {
	switch string(m) {
	case "POST", "PUT", "PATCH":
		return true
	}
	return false
}
