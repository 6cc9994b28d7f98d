// Package h3 is the server's side of HTTP/3 (RFC 9114) for the visitors of the
// reverse proxy, by quic-go, of which it is the only importer.
//
// QUIC, the framing and QPACK are quic-go's; this package bounds what visitors
// may make it hold, and turns its net/http requests into those of package wire.
// 0-RTT is off: what came in it could have been sent by anybody who recorded
// it. A visitor's address has to be proven (Retry) once many come at a time. A
// request's fields lose their order, but for those of the same name.
//
// A connection ends that has begun no request for Rules.Idle, whatever it has
// open; that is the bound for a head that comes too slowly.
package h3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"trivet/proxy/wire"
)

// Config of a Server. A zero of a limit or time takes the default.
type Config struct {
	// TLS as for TCP; its protocols do not matter. Session ticket keys and
	// certificates that are changed in it count for the next connection.
	TLS *tls.Config
	// Handle answers a request. The stream ends when it returns, and must not
	// be used any more; if it was not ended, the client sees it broken off.
	Handle func(*Stream)
	// Refused, if it is not nil, is told of a request that is answered by 4xx
	// without Handle, and gives fields for the answer.
	Refused func(peer netip.AddrPort, status int) []wire.Field
	// Handshake, if it is not nil, is called after each handshake, with its error.
	Handshake func(*tls.ConnectionState, error)
	// Log is told little; nil: nothing.
	Log *slog.Logger
	// Crowded, if it is not nil, says that the process holds as much for slow
	// visitors as it may: then each has few requests answered at a time, and
	// less time to take what is written.
	Crowded  func() bool
	Rules    Rules         // until Set
	Streams  int           // that a visitor may have open; 100
	Unproven int           // connections that may begin in a second before addresses have to be proven; 500
	Grace    time.Duration // for requests to end; 30 s
	// Secret, if not empty, is the same in all processes that serve a socket, one
	// after the other, and in no others: one that does not know a connection, for
	// it has just started, ends it at once (RFC 9000, 10.3), where the visitor
	// would wait for a time limit. None of them may be known to another that is
	// served elsewhere meanwhile (RFC 9000, 21.11). An address that was proven to
	// one is proven to all.
	Secret []byte
	// Window is how much of a request's body may be on its way or unread, at
	// most. All streams of a connection have twice as much together; 1 MiB.
	Window int
}

// Rules are what Set can change. A zero of a limit or time takes the default.
type Rules struct {
	Limits      wire.Limits   // Head is 64 KiB by default
	Connections int           // in all; 10,000
	Idle        time.Duration // without a request until a connection ends; 60 s
	Still       time.Duration // that a visitor may make no progress; 30 s
	Rate        int           // bytes in a second that a stream must move while its visitor is waited for, once that took Still; 250
}

func (r *Rules) complete() {
	orDefault(&r.Limits.Head, 64<<10)
	orDefault(&r.Limits.Count, 256)
	orDefault(&r.Connections, 10000)
	orDefault(&r.Idle, time.Minute)
	orDefault(&r.Still, 30*time.Second)
	orDefault(&r.Rate, 250)
}

func (c *Config) complete() {
	orDefault(&c.Streams, 100)
	orDefault(&c.Unproven, 500)
	orDefault(&c.Grace, 30*time.Second)
	orDefault(&c.Window, 1<<20)
	if c.Handshake == nil {
		c.Handshake = unheard
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Server answers visitors over HTTP/3.
type Server struct {
	cfg    Config
	rules  atomic.Pointer[Rules]
	begun  rate
	open   atomic.Int64
	active atomic.Int64
}

// New returns a server; it starts nothing.
func New(cfg Config) *Server {
	cfg.complete()
	s := &Server{cfg: cfg}
	s.Set(cfg.Rules)
	return s
}

// Set changes the rules for the requests to come. The size of a whole head, as
// the visitor is told it, and how long a connection may be silent are for the
// connections to come; so is Idle, but after a connection's next request.
func (s *Server) Set(r Rules) {
	r.complete()
	s.rules.Store(&r)
}

// Open is how many connections there are, and how many requests are being answered.
func (s *Server) Open() (connections, requests int) {
	return int(s.open.Load()), int(s.active.Load())
}

// AltSvc is the value of the field that tells visitors of HTTP/3 (RFC 7838) at
// port, for them to remember for age.
func AltSvc(port int, age time.Duration) string {
	return `h3=":` + strconv.Itoa(port) + `"; ma=` + strconv.Itoa(int(age/time.Second))
}

// Serve answers visitors that send to c until ctx ends. Then it takes no new
// ones, tells the others (GOAWAY), and returns when their requests have ended,
// at the latest after Config.Grace. c is not closed. Several sockets may be
// served at a time.
func (s *Server) Serve(ctx context.Context, c net.PacketConn) error {
	tr := s.transport(c)
	defer tr.Close() //nolint:errcheck // the socket is the caller's
	listener, err := tr.ListenEarly(s.tls(), s.quic())
	if err != nil {
		return fmt.Errorf("listen for QUIC: %w", err)
	}
	defer listener.Close() //nolint:errcheck // it was closed already, or tr ends it
	var all crowd
	err = s.accept(ctx, listener, &all)
	_ = listener.Close() // no new connections
	s.drain(&all)
	return err
}

// accept serves each visitor that comes to l until ctx ends.
func (s *Server) accept(ctx context.Context, l *quic.EarlyListener, all *crowd) error {
	for {
		c, err := l.Accept(ctx)
		switch {
		case err == nil:
			all.serve(c, s.http())
		case ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("serve QUIC: %w", err)
		}
	}
}

// goodbye is how long a drained connection stays open at least, so that GOAWAY
// arrives, and with it requests that were on their way are refused one by one.
const goodbye = 250 * time.Millisecond

func (s *Server) drain(all *crowd) {
	closing, done := context.WithTimeout(context.Background(), s.cfg.Grace)
	defer done()
	go func() {
		look := time.NewTicker(goodbye)
		defer look.Stop()
		for {
			select {
			case <-closing.Done():
				return
			case <-look.C:
			}
			if s.active.Load() == 0 {
				done()
			}
		}
	}()
	if err := all.shutdown(closing); err != nil && !errors.Is(err, context.Canceled) {
		s.cfg.Log.Info("requests over HTTP/3 broken off", "requests", s.active.Load(), "err", err)
	}
}

// http serves one connection, whose visitor is told the rules of now.
func (s *Server) http() *http3.Server {
	return &http3.Server{
		Handler:        http.HandlerFunc(s.serve),
		MaxHeaderBytes: 2 * s.rules.Load().Limits.Head, // beyond Limits.Head we refuse, with an ID; beyond this quic-go does, without
		ConnContext:    s.welcome,
	}
}

// tls asks Config.TLS afresh for each connection, because http3 works on a
// clone, which would keep the ticket keys of its time.
func (s *Server) tls() *tls.Config {
	return http3.ConfigureTLSConfig(&tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.cfg.TLS, nil },
	})
}

// quic asks the rules afresh for each connection too.
func (s *Server) quic() *quic.Config {
	c := s.quicNow()
	c.GetConfigForClient = func(*quic.ClientInfo) (*quic.Config, error) { return s.quicNow(), nil }
	return c
}

func (s *Server) quicNow() *quic.Config {
	window := uint64(s.cfg.Window)
	first := min(window, 128<<10)
	return &quic.Config{
		HandshakeIdleTimeout:           5 * time.Second,
		MaxIdleTimeout:                 s.rules.Load().Idle,
		InitialStreamReceiveWindow:     first,
		MaxStreamReceiveWindow:         window,
		InitialConnectionReceiveWindow: 2 * first,
		MaxConnectionReceiveWindow:     2 * window,
		MaxIncomingStreams:             int64(s.cfg.Streams),
		MaxIncomingUniStreams:          8, // three are HTTP/3's, the others such as keep clients honest
	}
}
