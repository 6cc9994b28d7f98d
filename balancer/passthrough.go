package balancer

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"trivet/proxy"
	"trivet/proxy/hello"
	"trivet/proxy/proxyproto"
	"trivet/proxy/tunnel"
	"trivet/proxy/upstream"
	"trivet/site"
)

// Bounds on connections that are passed through.
const (
	helloTimeout = 5 * time.Second
	passIdle     = 10 * time.Minute // without a byte either way
	passTries    = 3

	// answerTimeout is how long a web server may take to greet: a handshake's
	// sums take it a millisecond.
	answerTimeout = time.Second
)

// unrecognizedName is the alert by which a name is refused (RFC 6066, 3):
// fatal, 112, in a record of TLS 1.2's form, which all versions read.
var unrecognizedName = []byte{21, 3, 3, 0, 2, 2, 112}

// tlsSwitch takes each connection to port 443 to where its TLS ends: here, or
// with passthrough at a web server. The site may change its mind at any time;
// that goes for the next connection.
type tlsSwitch struct {
	balancer *Balancer
	inner    net.Listener
	here     *proxy.Handed
	passed   atomic.Int64 // connections that are passed through, from their first byte on
}

func newSwitch(b *Balancer, l net.Listener) *tlsSwitch {
	return &tlsSwitch{balancer: b, inner: l, here: proxy.NewHanded(l.Addr())}
}

// run accepts until ctx ends, and returns when all that was passed through has
// ended, or the time for draining is over.
func (s *tlsSwitch) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.inner.Close() })
	defer stop()
	passing, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var wg sync.WaitGroup
	err := proxy.AcceptAll(ctx, s.inner, func(c net.Conn) { s.open(passing, &wg, c) })
	s.here.End()
	grace := time.AfterFunc(tunnelGrace, cut)
	defer grace.Stop()
	wg.Wait()
	return err
}

// open takes c to where its TLS ends.
func (s *tlsSwitch) open(passing context.Context, wg *sync.WaitGroup, c net.Conn) {
	switch b := s.balancer.now.Load().site.Balancer; {
	case b.TLS != site.TLSPassthrough:
		s.here.Take(c)
	case s.passed.Load() >= int64(b.Limits.Connections):
		s.balancer.meters.refused.Inc()
		_ = c.Close()
	default:
		s.passed.Add(1)
		wg.Go(func() {
			defer s.passed.Add(-1)
			s.balancer.pass(passing, c)
		})
	}
}

// pass reads the name that a visitor asks for and joins the connection with a
// web server's, which opens the TLS.
func (b *Balancer) pass(ctx context.Context, c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(helloTimeout))
	h, begin, err := hello.Read(c, nil)
	if err != nil {
		b.meters.visits.Failed()
		return
	}
	name := strings.ToLower(string(h.Name))
	if name != "" && !b.now.Load().rules.Serves(strings.TrimSuffix(name, ".")) {
		_ = c.SetWriteDeadline(time.Now().Add(helloTimeout))
		_, _ = c.Write(unrecognizedName)
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	from, err := header(c, h)
	if err != nil {
		return
	}
	up, first := b.passTo(ctx, append(from, begin...))
	if up == nil {
		return
	}
	defer up.Done(upstream.OK, false)
	if _, err := c.Write(first); err != nil {
		return
	}
	b.meters.passed.WithLabelValues(up.Target().Name()).Inc()
	joined := tunnel.New(c, up, passIdle)
	defer b.passing.hold(joined, up.Target().Name())()
	stop := context.AfterFunc(ctx, func() { joined.Cancel(ctx.Err()) })
	_, _, _ = joined.Run()
	stop()
}

// header says where c comes from, and what for.
func header(c net.Conn, h hello.Hello) ([]byte, error) {
	return proxyproto.AppendV2(nil, &proxyproto.Header{
		Source: addrPort(c.RemoteAddr()), Destination: addrPort(c.LocalAddr()), Authority: h.Name,
	})
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		p := t.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}

// passTo sends begin to a web server and returns what it first said. Until one
// has spoken, the visitor has been promised nothing, and any other may be tried;
// nil: none answers.
func (b *Balancer) passTo(ctx context.Context, begin []byte) (*upstream.Conn, []byte) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	var choice upstream.Choice
	for range passTries {
		t := b.raw.Choose(&choice)
		if t == nil {
			if b.raw.Wait(ctx, time.Now().Add(b.raw.Settings().Patience)) != nil {
				return nil, nil
			}
			choice = upstream.Choice{}
			continue
		}
		choice.Try(t)
		up, err := t.Dial(ctx)
		if err != nil {
			continue
		}
		up.Begin()
		if first, err := greet(up, begin); err == nil {
			up.Tunnel()
			return up, first
		}
		up.Done(upstream.Broken, false)
	}
	return nil, nil
}

// greet hands begin over and awaits the first word.
func greet(up *upstream.Conn, begin []byte) ([]byte, error) {
	_ = up.SetDeadline(time.Now().Add(answerTimeout))
	if _, err := up.Write(begin); err != nil {
		return nil, err
	}
	first := make([]byte, 8<<10)
	n, err := up.Read(first)
	if err != nil {
		return nil, err
	}
	return first[:n], up.SetDeadline(time.Time{})
}

// passing are the connections that are passed through now, by server.
type passing struct {
	mu  sync.Mutex
	all map[*tunnel.Tunnel]string
}

// hold counts t in until the returned function is called.
func (p *passing) hold(t *tunnel.Tunnel, server string) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[*tunnel.Tunnel]string{}
	}
	p.all[t] = server
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.all, t)
	}
}

// count is how many there are.
func (p *passing) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

// end cuts those to a server.
func (p *passing) end(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t, to := range p.all {
		if to == server {
			t.Cancel(proxy.ErrDrained)
		}
	}
}
