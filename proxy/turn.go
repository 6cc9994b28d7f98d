package proxy

import (
	"errors"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"trivet/proxy/socket"
	"trivet/proxy/wire"
)

// turn is what an HTTP/1.1 connection needs while it is active: the buffers,
// and one request after the other with its exchange. It is the exchange's Stream.
type turn struct {
	c      *conn
	socket socket.Socket // of a plain connection

	// What was read: in.b[r:w] is not used yet. A body is read into in from
	// room on, for the head's fields point to what is before.
	in       *block
	r, w     int
	room     int
	heads    *block // that the request's head lies in, once in is another
	request  wire.Request
	exchange Exchange
	watch    watch
	body     body
	answer   answer
}

var turns = sync.Pool{New: func() any { return new(turn) }}

func (c *conn) takeTurn() *turn {
	t := turns.Get().(*turn)
	t.c, t.in, t.r, t.w = c, takeBlock(smallBlock), 0, 0
	t.body.turn, t.answer.turn = t, t
	t.socket.Use(socket.Of(c.net))
	c.mu.Lock()
	c.turn = t
	c.mu.Unlock()
	return t
}

// read reads from the connection.
func (t *turn) read(p []byte) (int, error) {
	if t.socket.Ready() {
		return t.socket.Read(p)
	}
	return t.c.net.Read(p)
}

// write writes to it.
func (t *turn) write(p []byte) (int, error) {
	if t.socket.Ready() {
		return t.socket.Write(p)
	}
	return t.c.net.Write(p)
}

// leave gives all back.
func (t *turn) leave() {
	c := t.c
	c.mu.Lock()
	c.turn = nil
	c.mu.Unlock()
	t.in.give()
	t.answer.give()
	t.c, t.in = nil, nil
	t.socket.Use(nil)
	turns.Put(t)
}

// errIdle is why a turn ends without a request: none came for a while.
var errIdle = errors.New("no request came")

// serveTurns answers requests until c is parked or closed.
func (c *conn) serveTurns() {
	t := c.takeTurn()
	for {
		err := t.next()
		if err == nil && t.run() {
			continue
		}
		linger := t.unread(err) || t.refuse(err)
		t.leave()
		switch {
		case err == errIdle:
			c.park(c.server.rules.Load().times.Idle)
			return
		case linger:
			c.linger()
		}
		c.close()
		return
	}
}

// unread says that the client may be sending what nobody will read, after an answer that it shall read.
func (t *turn) unread(err error) bool {
	if err != nil || t.c.tunnel.Load() || t.answer.err != nil {
		return false
	}
	return !t.body.done.Load() || t.r < t.w || t.c.pending()
}

// next reads the head of the next request.
func (t *turn) next() error {
	rules := t.c.server.rules.Load()
	t.compact()
	seen, begun := 0, false
	for {
		if t.r < t.w {
			end, err := wire.HeadEnd(t.in.b[t.r:t.w], seen)
			if err != nil {
				return err
			}
			if end > 0 {
				return t.parse(end, &rules.limits)
			}
			seen = t.w - t.r
			if err := t.makeRoom(&rules.limits); err != nil {
				return err
			}
			if !begun {
				begun = true
				t.c.guardRead(rules.times.Head)
				if t.c.begins() {
					t.c.guardRead(rules.times.Head)
				}
			}
		} else if t.c.server.ending.Load() {
			return io.EOF
		} else {
			t.c.guardIdle(t.idleWait(rules))
		}
		if err := t.fill(begun, rules); err != nil {
			return err
		}
		if !begun {
			rules = t.c.server.rules.Load() // they may have changed while nothing came
		}
	}
}

// idleWait is how long the goroutine stays.
func (t *turn) idleWait(rules *rules) time.Duration {
	if t.c.fd < 0 {
		return rules.times.Idle // it cannot be parked
	}
	return idleWait
}

var (
	errSlowHead = &wire.Error{Status: 408, Why: "the head came too slowly"}
	errCutHead  = errors.New("client went away within a head")
	errLongLine = &wire.Error{Status: 414, Why: "the request line is too long"}
	errLongHead = &wire.Error{Status: 431, Why: "the head is too long"}
)

// fill reads once. It lets others go first: under load the bytes are there then,
// and a read that would find nothing, and the wait for the poller, are saved,
// which is a tenth of all that a small request costs.
func (t *turn) fill(begun bool, rules *rules) error {
	runtime.Gosched()
	n, err := t.read(t.in.b[t.w:])
	t.w += n
	switch {
	case n > 0:
		return nil
	case timedOut(err) && begun:
		return errSlowHead
	case timedOut(err) && t.c.server.ending.Load():
		return io.EOF
	case timedOut(err) && t.c.fd >= 0:
		return errIdle
	case begun:
		return errCutHead
	}
	return io.EOF
}

// compact moves what came already of the next request to the buffer's beginning.
func (t *turn) compact() {
	if t.r == t.w {
		t.r, t.w = 0, 0
		if t.in.size != smallBlock {
			t.in.give()
			t.in = takeBlock(smallBlock)
		}
		return
	}
	if t.r > 0 {
		t.w = copy(t.in.b, t.in.b[t.r:t.w])
		t.r = 0
	}
}

// defaultHead bounds a head where the limits do not.
const defaultHead = 64 << 10

// makeRoom makes sure that more of a head can be read.
func (t *turn) makeRoom(l *wire.Limits) error {
	most := l.Head
	if most <= 0 {
		most = defaultHead
	}
	switch have := t.w - t.r; {
	case have >= most:
		return tooLong(t.in.b[t.r:t.w])
	case t.w == len(t.in.b):
		larger := blockFor(2 * len(t.in.b))
		t.w = copy(larger.b, t.in.b[t.r:t.w])
		t.in.give()
		t.in, t.r = larger, 0
	}
	return nil
}

// tooLong says what of an endless head is.
func tooLong(b []byte) error {
	for _, c := range b {
		if c == '\n' {
			return errLongHead
		}
	}
	return errLongLine
}

// parse reads the head that ends at end.
func (t *turn) parse(end int, l *wire.Limits) error {
	head := t.in.b[t.r : t.r+end]
	t.r += end
	t.room = t.r
	return t.request.Parse(head, l)
}

// run has the request answered; true: another may follow.
func (t *turn) run() bool {
	s := t.c.server
	x := t.begin()
	t.c.exchange.Store(max(s.clock.Load(), 1))
	if t.c.begins() {
		t.c.exchange.Store(max(s.clock.Load(), 1))
	}
	s.handle(x)
	t.c.unwatch()
	again := t.finish()
	s.conclude(x)
	t.watch.end()
	t.heads.give()
	t.heads = nil
	return again
}

// begin makes the exchange ready.
func (t *turn) begin() *Exchange {
	t.body.begin(&t.request)
	t.answer.begin(&t.request)
	x := &t.exchange
	x.renew()
	x.Request, x.Stream, x.watch, x.server = &t.request, t, &t.watch, t.c.server
	x.Peer, x.Client = t.c.peer, t.c.peer.Addr()
	if t.c.state != nil {
		x.Secure, x.TLS, x.Server = true, t.c.state, t.c.state.ServerName
	}
	return x
}

// renew makes x as new, but for the room it has.
func (x *Exchange) renew() {
	clear(x.Out)
	clear(x.Up)
	clear(x.fields)
	*x = Exchange{Out: x.Out[:0], Up: x.Up[:0], Scratch: x.Scratch[:0], fields: x.fields[:0], Begin: time.Now()}
}

// handle calls the handler and sees to it that there is an answer. It is false
// when the handler panicked: somebody may still use x.
func (s *Server) handle(x *Exchange) (sound bool) {
	x.limit = s.rules.Load().maxBody
	defer func() {
		if p := recover(); p != nil {
			s.config.Log.Error("handler panicked", "panic", p, "stack", string(debug.Stack()))
			x.Abort(errors.New("handler panicked"))
		}
	}()
	s.config.Handler(x)
	if !x.started && !x.Tunnel && x.Status != StatusClientGone {
		x.Answer(500, nil, nil)
	}
	return true
}

// conclude tells that x is over.
func (s *Server) conclude(x *Exchange) {
	x.Times.Total = time.Since(x.Begin)
	s.config.Done(x)
}

// finish ends the answer and says whether the connection can go on.
func (t *turn) finish() bool {
	if t.c.tunnel.Load() {
		return false
	}
	if !t.answer.ended {
		t.answer.abort()
		t.exchange.Broken = true
		return false
	}
	return t.answer.err == nil && !t.answer.close && t.body.skip()
}

// refuse answers a request that could not be understood, and says whether the
// connection must linger for the client to see it.
func (t *turn) refuse(err error) bool {
	e, ok := errors.AsType[*wire.Error](err)
	if !ok {
		return false
	}
	t.request = wire.Request{Major: 1, Minor: 1, Fields: t.request.Fields[:0], Close: true}
	x := t.begin()
	x.Err = e
	t.c.server.config.Name(x)
	x.Answer(e.Status, refusalFields, append(append(x.Scratch, e.Why...), '\n'))
	t.c.server.conclude(x)
	t.watch.end()
	return true
}

var refusalFields = []wire.Field{{Name: []byte("Content-Type"), Value: []byte("text/plain; charset=utf-8"), Kind: wire.ContentType}}

// How long, and for how much, a connection lingers after an answer that the
// client may not have read, for closing it at once would reset it.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 16 << 20
)

// linger tells the client that no more comes, and reads what it still sends.
func (c *conn) linger() {
	c.guardRead(0)
	_ = c.net.SetWriteDeadline(time.Now().Add(lingerTime))
	if half, ok := c.net.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	raw := rawConn(c.net)
	if half, ok := raw.(interface{ CloseWrite() error }); ok && raw != c.net {
		_ = half.CloseWrite()
	}
	_ = raw.SetReadDeadline(time.Now().Add(lingerTime))
	b := takeBlock(smallBlock)
	defer b.give()
	_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(struct{ net.Conn }{raw}, lingerBytes), b.b)
}

// Read, Trailer and the rest are those of Stream.

// Read reads the request's body.
func (t *turn) Read(p []byte) (int, error) { return t.body.read(p) }

// Trailer is what followed it.
func (t *turn) Trailer() []wire.Field { return t.body.trailer() }

// Head begins the answer.
func (t *turn) Head(status int, fields []wire.Field, length int64) error {
	return t.answer.head(status, fields, length)
}

// Write writes a part of its body.
func (t *turn) Write(p []byte) (int, error) { return t.answer.write(p) }

// Flush sends what is held back.
func (t *turn) Flush() error { return t.answer.flush() }

// End ends the answer.
func (t *turn) End(trailer []wire.Field) error { return t.answer.end(trailer) }

// Abort breaks it off.
func (t *turn) Abort() { t.answer.abort() }
