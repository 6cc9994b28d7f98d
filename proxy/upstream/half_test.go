package upstream

import (
	"context"
	"io"
	"net"
	"testing"

	"trivet/proxy/tunnel"
)

// TestHalfClose: a tunnel to a target passes on that the client sends no more,
// and what the target then says.
func TestHalfClose(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			s, err := net.Listen(network, map[string]string{"tcp": "127.0.0.1:0", "unix": t.TempDir() + "/s"}[network])
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			go func() {
				c, err := s.Accept()
				if err != nil {
					return
				}
				b, _ := io.ReadAll(c)
				_, _ = c.Write(append(b, " and all of it"...))
				_ = c.Close()
			}()
			g := NewTarget(TargetConfig{Name: "a", State: Up, Dial: func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, s.Addr().String())
			}})
			up := dialed(t, g)
			up.Tunnel()
			client, here := tcpPair(t)
			over := make(chan error, 1)
			go func() {
				_, _, err := tunnel.New(here, up, 0).Run()
				_ = here.Close()
				up.Done(OK, false)
				over <- err
			}()
			_, _ = io.WriteString(client, "a word")
			_ = client.(*net.TCPConn).CloseWrite()
			if got, err := io.ReadAll(client); err != nil || string(got) != "a word and all of it" {
				t.Errorf("got %q, %v, want the target's answer to all that was said", got, err)
			}
			if err := <-over; err != nil {
				t.Errorf("the tunnel ended with %v", err)
			}
		})
	}
}

// tcpPair is the two ends of a connection.
func tcpPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}
