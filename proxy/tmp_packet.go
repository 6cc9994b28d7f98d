package proxy

import (
	"context"
	"crypto/tls"
	"net"
)

func (s *Server) ServePacket(ctx context.Context, c net.PacketConn, _ *tls.Config) error {
	<-ctx.Done()
	return c.Close()
}
