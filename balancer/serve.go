package balancer

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"trivet/internal/part"
	"trivet/proxy"
	"trivet/proxy/edge"
	"trivet/proxy/wire"
	"trivet/site"
)

// mostFields that a request may have.
const mostFields = 100

// still is how long a visitor may neither send what was announced nor take
// what is sent, however low the rate that the site asks for.
const still = 30 * time.Second

// servers are those that run, so that an Apply can change their limits.
type servers struct{ plain, secure *proxy.Server }

func (s *servers) set(c site.Balancer) {
	for _, v := range []*proxy.Server{s.plain, s.secure} {
		v.Set(limits(c), c.Limits.Body, times(c))
		v.SetConnections(c.Limits.Connections)
	}
}

func limits(c site.Balancer) wire.Limits {
	return wire.Limits{Head: c.Limits.Head, Field: c.Limits.Head, Target: c.Limits.Head / 2, Count: mostFields}
}

func times(c site.Balancer) proxy.Times {
	return proxy.Times{Head: c.Limits.HeadTime.Std(), Idle: c.Limits.Idle.Std(), Still: still, Rate: c.Limits.Rate}
}

// serve runs all listeners; if one breaks, all end.
func (b *Balancer) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := b.now.Load().site.Balancer
	run := &servers{plain: b.server(c, b.redirect, nil), secure: b.server(c, b.answer, b.visitors.TLS())}
	b.servers.Store(run)
	b.serving.Store(true)
	defer b.serving.Store(false)
	jobs := []func() error{
		func() error { return run.plain.Serve(ctx, b.http) },
		func() error { return b.serveSecure(ctx, run.secure) },
	}
	if b.quic != nil {
		jobs = append(jobs, func() error { return b.servePackets(ctx, run.secure) })
	}
	results := make(chan error, len(jobs))
	for _, job := range jobs {
		go func() { results <- job() }()
	}
	var errs []error
	for range jobs {
		errs = append(errs, <-results)
		cancel()
	}
	return errors.Join(errs...)
}

// serveSecure takes each connection to port 443 to where it is opened: here,
// or, with passthrough, at a web server.
func (b *Balancer) serveSecure(ctx context.Context, here *proxy.Server) error {
	s := newSwitch(b, b.https)
	served := make(chan error, 1)
	go func() { served <- here.Serve(ctx, s.here) }()
	err := s.run(ctx)
	return errors.Join(err, <-served)
}

// servePackets offers HTTP/3 until ctx ends, from when it is this process's turn.
func (b *Balancer) servePackets(ctx context.Context, s *proxy.Server) error {
	select {
	case <-b.turn:
	case <-ctx.Done():
		return b.quic.Close()
	}
	if err := s.ServePacket(ctx, b.quic, b.visitors.TLS(), b.now.Load().packets); err != nil {
		return fmt.Errorf("serve HTTP/3: %w", err)
	}
	return nil
}

func (b *Balancer) server(c site.Balancer, h func(*proxy.Exchange), secure *tls.Config) *proxy.Server {
	return proxy.NewServer(proxy.Config{
		Log: b.log, Handler: h, Name: edge.Name, Done: b.count, TLS: secure, HTTP2: secure != nil,
		Limits: limits(c), Times: times(c), MaxBody: c.Limits.Body,
		Connections: c.Limits.Connections, Refused: b.meters.refused.Inc,
		Grace: drainGrace, TunnelGrace: tunnelGrace, Linger: linger,
		Handshake: b.meters.visits.Handshake,
	})
}

// packetSecret is what the balancers of one server have in common, one after
// the other, that no other server's has: while a connection may live on
// elsewhere, nobody must be able to end it (RFC 9000, 10.3.2). It comes from
// the key of sticky cookies, since that is never renewed, as those of session
// tickets are: a process may be weeks old when the next takes over.
func packetSecret(s part.State) []byte {
	agreed := s.Secrets[part.SecretSticky]
	if agreed == "" {
		return nil
	}
	secret, err := hkdf.Key(sha256.New, []byte(agreed), nil, "trivet http/3 of "+s.Server, sha256.Size)
	if err != nil { // only if one of the lengths is not allowed
		return nil
	}
	return secret
}

// errNoHTTP3 ends a handshake for HTTP/3 while the site has none.
var errNoHTTP3 = errors.New("the site does not offer HTTP/3")

func offersHTTP3(s *site.Site) bool {
	return s.Balancer.HTTP3 && s.Balancer.TLS != site.TLSPassthrough
}

// met has the last word on each visitor's handshake. Whoever heard of HTTP/3
// while the site offered it comes back by TCP.
func (b *Balancer) met(cs tls.ConnectionState) error {
	if v := b.now.Load(); cs.NegotiatedProtocol == "h3" && (v == nil || !offersHTTP3(v.site)) {
		return errNoHTTP3
	}
	return nil
}

// altSvc says where HTTP/3 is offered: at the port that visitors use anyway.
func (b *Balancer) altSvc(s *site.Site) string {
	if b.quic == nil || !offersHTTP3(s) {
		return ""
	}
	at, ok := b.quic.LocalAddr().(*net.UDPAddr)
	if !ok {
		return ""
	}
	return proxy.AltSvc(at.Port, 24*time.Hour)
}
