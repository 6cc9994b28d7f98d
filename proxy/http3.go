package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"trivet/proxy/h3"
	"trivet/proxy/wire"
)

// packetGrace is how long requests by HTTP/3 may go on when their server ends:
// c can be read by one process only, and another may be waiting for it.
const packetGrace = 1500 * time.Millisecond

// AltSvc is the value of the field that tells visitors of HTTP/3 at port, for
// the time age (RFC 7838).
func AltSvc(port int, age time.Duration) string { return h3.AltSvc(port, age) }

// ServePacket answers HTTP/3 on c until ctx ends, then drains within 1.5 s. It
// closes c. With a secret that all processes have that serve c's address, one
// after the other, and nobody else, visitors of the one before learn at once
// that it is gone; empty: they wait for their time limit.
func (s *Server) ServePacket(ctx context.Context, c net.PacketConn, cfg *tls.Config, secret []byte) error {
	h := h3.New(h3.Config{
		TLS: cfg, Handle: s.handleH3, Refused: s.refusedH3, Handshake: s.config.Handshake, Log: s.config.Log,
		Grace: min(s.config.Grace, packetGrace), Secret: secret, Crowded: tight,
	})
	s.mu.Lock()
	s.h3 = append(s.h3, h)
	s.tellH3()
	s.mu.Unlock()
	err := h.Serve(ctx, c)
	s.mu.Lock()
	s.h3 = slices.DeleteFunc(s.h3, func(v *h3.Server) bool { return v == h })
	s.mu.Unlock()
	return errors.Join(err, c.Close())
}

// tellH3 has HTTP/3 keep the rules of now. It is called with s.mu held.
func (s *Server) tellH3() {
	r := s.rules.Load()
	for _, h := range s.h3 {
		h.Set(h3.Rules{
			Limits: r.limits, Connections: s.most, Idle: r.times.Idle, Still: r.times.Still, Rate: r.times.Rate,
		})
	}
}

// handleH3 answers one stream.
func (s *Server) handleH3(st *h3.Stream) {
	s.serveStream(st, st.Request(), st.Peer(), st.TLS(), st.OnGone)
}

// refusedH3 is refused for a stream of the visitor at peer.
func (s *Server) refusedH3(peer netip.AddrPort, status int) []wire.Field {
	return s.refused(3, peer, status)
}
