package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
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
// closes c. Limits are those of now.
func (s *Server) ServePacket(ctx context.Context, c net.PacketConn, cfg *tls.Config) error {
	r := s.rules.Load()
	err := h3.New(h3.Config{
		TLS: cfg, Handle: s.handleH3, Refused: s.refusedH3, Handshake: s.config.Handshake, Log: s.config.Log,
		Limits: r.limits, Connections: s.connections(), Idle: r.times.Idle, Still: r.times.Still, Rate: r.times.Rate,
		Grace: min(s.config.Grace, packetGrace),
	}).Serve(ctx, c)
	return errors.Join(err, c.Close())
}

// handleH3 answers one stream.
func (s *Server) handleH3(st *h3.Stream) {
	s.serveStream(st, st.Request(), st.Peer(), st.TLS(), st.OnGone)
}

// refusedH3 is refused for a stream of the visitor at peer.
func (s *Server) refusedH3(peer netip.AddrPort, status int) []wire.Field {
	return s.refused(3, peer, status)
}
