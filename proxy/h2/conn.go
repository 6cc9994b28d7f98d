// Package h2 is the server's side of an HTTP/2 connection (RFC 9113), for the
// visitors of the reverse proxy.
//
// One goroutine, that of Serve, reads frames and never writes; each request's
// handler runs on a goroutine of Config's crew. Frames to send are appended to
// one buffer, and whoever finds nobody writing writes it out, with what others
// appended in the meantime. A sweep of all connections of a Config, which runs
// only while one of them is served, keeps every time limit and refills what
// flood.go takes from, so that no request costs a timer or a deadline.
//
// What RFC 9113 forbids is refused, and so are floods: whoever makes work
// without asking for anything is sent away with ENHANCE_YOUR_CALM.
package h2

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"trivet/proxy/crew"
	"trivet/proxy/wire"
)

// Config is what connections share. It must not be copied or changed once New
// was called with it. A zero of a limit or time takes the default.
type Config struct {
	// Handle answers a request. The stream ends when it returns, and must not
	// be used any more; if it was not ended, the client sees it broken off.
	Handle func(*Stream)
	// Refused, if it is not nil, is told of a request on c, the connection that
	// New was given, that is answered by status without Handle, and gives fields
	// for the answer. It must not block.
	Refused func(c net.Conn, status int) []wire.Field
	Limits  wire.Limits
	Streams uint32        // that a client may have open; 128
	Park    time.Duration // without a stream or a frame until Serve returns idle; 1 s
	Head    time.Duration // for the preface, and for a head to come in whole; 10 s
	Still   time.Duration // that a stream, or all writing, may make no progress; 30 s
	Rate    int           // bytes in a second that a stream must move while its client is waited for, once that took Still; 250
	// Window is how much of a request's body may be on its way or unread, at
	// most, once it was seen that the handler keeps up; 1 MiB. All streams of a
	// connection have twice as much together.
	Window int

	once  sync.Once
	crew  crew.Crew[job]
	sweep sweep
}

func (cfg *Config) prepare() {
	orDefault(&cfg.Streams, 128)
	orDefault(&cfg.Park, time.Second)
	orDefault(&cfg.Head, 10*time.Second)
	orDefault(&cfg.Still, 30*time.Second)
	orDefault(&cfg.Rate, 250)
	orDefault(&cfg.Window, 1<<20)
	orDefault(&cfg.Limits.Head, 64<<10)
	orDefault(&cfg.Limits.Count, 256)
	cfg.Window = max(cfg.Window, firstWindow)
	cfg.crew.Do = job.do
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Why a stream or a connection ended, for callers to branch on.
var (
	ErrReset    = errors.New("stream was reset by the client")
	ErrAborted  = errors.New("stream was aborted")
	ErrStill    = errors.New("client made no progress in time")
	ErrSlowHead = errors.New("head did not come in time")
	ErrClosed   = errors.New("connection is closed")
)

// Conn is one connection. Serve is called by one goroutine at a time, Shutdown by any.
type Conn struct {
	net net.Conn
	cfg *Config

	// Of Serve's goroutine alone.
	in      *buffer // bytes read; in.b[r:w] are not handled yet
	r, w    int
	decoder decoder
	block   headBlock // of a head that CONTINUATION follows
	started bool      // the preface came
	greeted bool      // and the client's SETTINGS

	heard   atomic.Int64  // when something was read last
	partial atomic.Int64  // since when a preface, head or frame is awaited that began; 0: none
	half    atomic.Uint32 // the stream of a DATA frame that has begun; 0: none

	mu       sync.Mutex
	idle     sync.Cond // handlers, or the writing, came to an end
	room     sync.Cond // out was taken to be written
	streams  map[uint32]*Stream
	last     uint32 // highest stream the client opened
	closed   closedRing
	handlers int // that did not return yet
	zombies  int // handlers of streams that were reset
	peer     peer
	send     int64 // the client's window for the connection
	recv     window
	levels   levels    // of the flood limits
	blocked  int       // bytes that handlers hold until the client takes more
	queue    []*Stream // that begin once it is less
	taken    int64     // bytes of bodies that the client's windows let out
	seen     int64     // taken, at held
	held     int64     // when it was last looked at what the client takes
	err      error     // why the connection is over

	out     *buffer
	encoder encoder
	epoch   uint32 // counts how often out was taken
	control int    // frames in out that answer to a frame
	writing bool
	wrote   int64 // when the write that is on began
	pings   int64 // when a PING was sent that nothing came after; 0: none

	serving  bool
	parking  bool
	leaving  leaving
	leftAt   int64  // when the first GOAWAY was sent; 0: it was not
	lastGood uint32 // streams above it are not served any more, once leaving is final
}

// leaving is how far a graceful end has come (RFC 9113, 6.8).
type leaving uint8

const (
	staying leaving = iota
	noticed         // the first GOAWAY is sent; streams on their way are still served
	final           // the second is; the connection ends with its last stream
)

// New returns a connection over c, which is taken over: TLS is established by
// now, or the client speaks HTTP/2 at once.
func New(c net.Conn, cfg *Config) *Conn {
	cfg.once.Do(cfg.prepare)
	n := &Conn{net: c, cfg: cfg, streams: make(map[uint32]*Stream), levels: full, send: defaultWindow, peer: newPeer()}
	n.recv = window{size: connWindow(firstWindow), avail: defaultWindow}
	n.idle.L, n.room.L = &n.mu, &n.mu
	return n
}

// Serve reads and answers until the connection is over or idle. Idle means that
// no stream is open and nothing came for Config.Park: all buffers are given
// back, and Serve is to be called again once the connection is readable.
// Otherwise the connection is closed when Serve returns, after the last handler
// has returned; the error is nil after Shutdown and when the client left
// between two requests.
func (c *Conn) Serve() (idle bool, err error) {
	c.begin()
	defer c.cfg.sweep.drop(c)
	for {
		err = c.read()
		switch {
		case !errors.Is(err, errParked):
			return false, c.finish(err)
		case c.park():
			return true, nil
		}
	}
}

// errParked ends the reading of a connection that is idle.
var errParked = errors.New("idle")

func (c *Conn) begin() {
	now := c.cfg.sweep.add(c, c.cfg)
	c.heard.Store(now)
	if c.in == nil {
		c.in = ins.take()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving, c.held = true, now
	if !c.started {
		c.partial.Store(now)
	}
}

// park gives back what is not needed while nothing happens. It refuses when
// something has begun since the sweep decided.
func (c *Conn) park() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parking = false
	_ = c.net.SetReadDeadline(time.Time{})
	if c.err != nil || c.leaving != staying || c.busy() || c.out != nil || c.r != c.w {
		return false
	}
	c.serving = false
	c.in, c.r, c.w = c.in.free(), 0, 0
	c.block = headBlock{}
	c.encoder.clear()
	return true
}

// busy says whether a stream, a handler or a write is on. mu is held.
func (c *Conn) busy() bool { return len(c.streams) > 0 || c.handlers > 0 || c.writing }

// finish ends the connection for good: err is what the reading ended with.
func (c *Conn) finish(err error) error {
	var f *fault
	told := errors.As(err, &f)
	c.mu.Lock()
	if told && c.err == nil {
		c.goAway(c.last, f.code, f.why)
	}
	c.fail(err)
	agreed := errors.Is(c.err, errLeft)
	patience := farewell
	if agreed {
		patience = c.cfg.Still
	}
	_ = c.net.SetWriteDeadline(time.Now().Add(patience))
	c.flush(alone)
	for c.handlers > 0 || c.writing {
		c.idle.Wait()
	}
	c.serving = false
	agreed = agreed && errors.Is(c.err, errLeft)
	c.mu.Unlock() // the sweep must not wait
	switch {
	case told:
		linger(c.net, c.in.b)
	case agreed:
		part(c.net, c.in.b, c.cfg.Still)
	}
	_ = c.net.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in, c.out = c.in.free(), c.out.free()
	return cause(c.err)
}

// cause leaves out what is no error.
func cause(err error) error {
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// errLeft is the end of a connection by Shutdown or End, or by the client between two requests.
var errLeft = fmt.Errorf("%w by agreement", ErrClosed)

// fail makes err the end of all streams. mu is held.
func (c *Conn) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	for _, s := range c.streams {
		c.lose(s, c.err)
	}
	c.room.Broadcast()
}

// Shutdown ends the connection gracefully: GOAWAY now, no further streams soon
// after, and Serve returns once the last stream is done. Of a connection that is
// parked, or not served yet, that is the work of the next Serve.
func (c *Conn) Shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.leaving != staying {
		return
	}
	c.leaving = noticed
	if c.serving {
		c.notice()
		c.flushSoon()
	}
}

// End closes a connection that is parked, with a GOAWAY. It waits for a client
// that still takes what was sent.
func (c *Conn) End() {
	queued := unsent(c.net)
	if !c.lastWords() {
		return
	}
	if c.started && queued > 0 {
		in := ins.take()
		part(c.net, in.b, c.cfg.Still)
		in.free()
	}
	_ = c.net.Close()
}

// lastWords are those of a connection that is parked; false: it is not.
func (c *Conn) lastWords() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.serving {
		return false
	}
	_ = c.net.SetWriteDeadline(time.Now().Add(farewell))
	c.err = errLeft
	if c.started {
		c.goAway(c.last, codeNo, "")
		c.flush(alone)
	}
	c.out = c.out.free()
	return true
}

// notice is the first GOAWAY: it names no stream. mu is held.
func (c *Conn) notice() {
	c.leftAt = c.cfg.sweep.now.Load()
	c.goAway(maxStream, codeNo, "")
}

// wake ends a Read that is on, or the next. mu is held.
func (c *Conn) wake() { _ = c.net.SetReadDeadline(past) }

var past = time.Unix(1, 0)

// interrupted says what a Read that ended in time's name was ended for.
func (c *Conn) interrupted(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.err
	case c.leaving == final && len(c.streams) == 0 && c.handlers == 0:
		return errLeft // a write that is on is waited for by finish
	case c.parking:
		return errParked
	}
	return err
}
