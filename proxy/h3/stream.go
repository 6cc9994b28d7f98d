package h3

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"trivet/proxy/wire"
)

// Why a method of a Stream fails, for callers to branch on.
var (
	// ErrStill: the visitor made no progress for Rules.Still, or less than Rules.Rate.
	ErrStill = errors.New("client made too little progress in time")
	// ErrEnded: Read after the answer has ended before the body.
	ErrEnded = errors.New("stream was answered before its body ended")
	// ErrBody: the answer's body is not as long as was said.
	ErrBody = errors.New("answer's body is not as long as its head says")
	// ErrState: a head after the head, or a body before it.
	ErrState = errors.New("answer is written in the wrong order")
)

// Stream is one request and its answer: proxy.Stream of HTTP/3.
type Stream struct {
	server  *Server
	rules   *Rules // as it began
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	request wire.Request
	stop    func() // of OnGone

	ahead   [1]byte // of the body, read to see whether there is one
	isAhead bool
	atEnd   bool // of the body
	pace    pace

	mu     sync.Mutex
	begun  bool  // the answer's head is out
	bare   bool  // it has no body, by method or status
	owed   int64 // of the answer's body; -1: not known
	over   bool  // ended or aborted
	broken bool
}

func newStream(server *Server, w http.ResponseWriter, r *http.Request) *Stream {
	s := &Stream{server: server, rules: server.rules.Load(), w: w, r: r, control: http.NewResponseController(w), owed: -1}
	translate(&s.request, r)
	return s
}

// Request is the request's head.
func (s *Stream) Request() *wire.Request { return &s.request }

// TLS is the connection's state.
func (s *Stream) TLS() *tls.ConnectionState { return s.r.TLS }

// Peer is where the visitor sends from at present.
func (s *Stream) Peer() netip.AddrPort {
	peer, _ := netip.ParseAddrPort(s.r.RemoteAddr)
	return netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
}

// OnGone has f called once, on another goroutine, if the visitor gives the
// answer up or the connection ends before Handle returns, which waits for f. It
// is called once at most.
func (s *Stream) OnGone(f func()) { s.stop = gone(s.r.Context(), f) }

// Read reads the request's body; io.EOF at its end. The first Read sends 100
// Continue to a client that awaits it. Once the answer has begun it may wait
// for as long as the visitor is there.
func (s *Stream) Read(p []byte) (int, error) {
	if s.isAhead && len(p) > 0 {
		p[0] = s.ahead[0]
		s.isAhead = false
		return 1, nil
	}
	if s.atEnd {
		return 0, io.EOF
	}
	if err := s.await(); err != nil {
		return 0, err
	}
	began := time.Now()
	n, err := readBody(s.r, p)
	switch {
	case err != nil:
		return n, s.why(err)
	case s.isSlow(n, began):
		return n, ErrStill
	}
	return n, nil
}

// isSlow counts n bytes that were read, and says whether that is too slow: only
// before the answer, for later there may be nothing to say.
func (s *Stream) isSlow(n int, began time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.begun && s.pace.moved(n, began, s.rules)
}

// await makes ready for a Read.
func (s *Stream) await() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return ErrEnded
	}
	if s.begun {
		return nil
	}
	if s.request.Expect {
		s.request.Expect = false
		s.w.WriteHeader(http.StatusContinue)
	}
	return s.control.SetReadDeadline(time.Now().Add(s.rules.Still))
}

// why tells what a Read failed for.
func (s *Stream) why(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case isEnd(err):
		s.atEnd = true
		return io.EOF
	case s.over:
		return ErrEnded
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrStill
	}
	return err
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) }

// readBody hides that quic-go reads nothing once, where trailers follow.
func readBody(r *http.Request, p []byte) (n int, err error) {
	for n == 0 && err == nil && len(p) > 0 {
		n, err = r.Body.Read(p)
	}
	return n, err
}

// Trailer is what followed the body, once Read has returned io.EOF.
func (s *Stream) Trailer() []wire.Field {
	if len(s.r.Trailer) == 0 {
		return nil
	}
	t := make(text, 0, 256)
	return appendFields(nil, &t, s.r.Trailer)
}

// Head begins an answer, or sends an interim one (1xx, but for 101); see proxy.Stream.
func (s *Stream) Head(status int, fields []wire.Field, length int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.begun || status == http.StatusSwitchingProtocols {
		return ErrState
	}
	h := s.w.Header()
	if status < 200 {
		s.request.Expect = s.request.Expect && status != http.StatusContinue
		setFields(h, fields, false)
		s.w.WriteHeader(status)
		clear(h)
		return nil
	}
	head := s.r.Method == http.MethodHead
	s.begun, s.request.Expect, s.owed = true, false, length
	s.bare = head || status == http.StatusNoContent || status == http.StatusNotModified
	setFields(h, fields, head && length <= 0)
	if length > 0 || length == 0 && !s.bare {
		h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	s.w.WriteHeader(status)
	return s.control.SetReadDeadline(time.Time{})
}

// setFields sets fields in h, without framing, but for a length that is to be
// kept, and keeps net/http from adding its own.
func setFields(h http.Header, fields []wire.Field, length bool) {
	h["Date"], h["Content-Type"] = nil, nil
	for _, f := range fields {
		if f.Kind != wire.Other && f.Kind <= wire.Expect && (f.Kind != wire.ContentLength || !length) {
			continue
		}
		name := http.CanonicalHeaderKey(string(f.Name))
		h[name] = append(h[name], string(f.Value))
	}
}

// patience is how long the visitor may take nothing of what is written.
func (s *Stream) patience() time.Duration {
	if s.server.crowded() {
		return min(s.rules.Still, crowdedStill)
	}
	return s.rules.Still
}

// Write sends a part of the answer's body.
func (s *Stream) Write(p []byte) (n int, err error) {
	if err := s.owe(len(p)); err != nil || len(p) == 0 {
		return 0, err
	}
	if s.bare {
		return len(p), nil
	}
	for n < len(p) && err == nil {
		began := time.Now()
		_ = s.control.SetWriteDeadline(began.Add(s.patience())) // a closed stream: Write tells
		var k int
		k, err = s.w.Write(p[n:min(len(p), n+s.rules.piece())])
		n += k
		if s.pace.moved(k, began, s.rules) && err == nil {
			err = ErrStill
		}
	}
	return n, s.slow(err)
}

// owe counts n bytes of the body that is to be written.
func (s *Stream) owe(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.begun || s.over:
		return ErrState
	case s.bare || s.owed < 0:
		return nil
	case int64(n) > s.owed:
		return ErrBody
	}
	s.owed -= int64(n)
	return nil
}

func (s *Stream) slow(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrStill
	}
	return err
}

// Flush sends what is held back.
func (s *Stream) Flush() error {
	if err := s.owe(0); err != nil {
		return err
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(s.rules.Still)) // a closed stream: Flush tells
	return s.slow(s.control.Flush())
}

// End ends the answer. The last of it is sent when Handle returns.
func (s *Stream) End(trailer []wire.Field) error {
	if s.bare {
		if err := s.Flush(); err != nil { // or net/http would count the body
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun || s.over {
		return ErrState
	}
	s.over = true
	_ = s.control.SetReadDeadline(time.Unix(1, 0)) // ends a Read that is under way
	if s.owed > 0 && !s.bare {
		s.broken = true
		return ErrBody
	}
	h := s.w.Header()
	for _, f := range trailer {
		name := trailerName(f.Name)
		h[name] = append(h[name], string(f.Value))
	}
	return nil
}

// Abort breaks the answer off when Handle returns, so that the client sees that it is not whole.
func (s *Stream) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over, s.broken = true, true
	past := time.Unix(1, 0)
	_ = s.control.SetReadDeadline(past)
	_ = s.control.SetWriteDeadline(past)
}

// close is called when the handler has returned; false: the answer is not whole.
func (s *Stream) close() bool {
	if s.stop != nil {
		s.stop()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.control.SetWriteDeadline(time.Now().Add(s.rules.Still)) // for what net/http sends now
	return s.over && !s.broken
}
