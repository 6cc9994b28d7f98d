package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"trivet/proxy"
	"trivet/proxy/upstream"
)

// TestTunnelGraceOfUnread: TunnelGrace holds from the tunnel's first byte on,
// whether anybody reads it or not.
func TestTunnelGraceOfUnread(t *testing.T) {
	target := raw(t, "talks", func(c net.Conn, r *bufio.Reader) {
		_ = readRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nunread")
		_, _ = r.ReadByte()
	})
	pool := upstream.NewPool(upstream.PoolConfig{})
	pool.Set(upstream.Settings{Targets: targetsOf(target)})
	s := proxy.NewServer(proxy.Config{
		Log: slog.New(slog.DiscardHandler), Handler: (&proxy.Forwarder{Pool: pool}).Forward,
		Grace: 10 * time.Millisecond, TunnelGrace: 100 * time.Millisecond,
	})
	l := proxy.NewHanded(&net.TCPAddr{})
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	here, there := net.Pipe() // has no room: what is written waits until it is read
	defer func() { _ = here.Close() }()
	l.Take(there)
	_ = here.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(here, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one...) {
		if _, err := here.Read(one); err != nil {
			t.Fatalf("after %q: %v", head, err)
		}
	}
	if resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil); err != nil || resp.StatusCode != 101 {
		t.Fatalf("got %q, %v, want 101", head, err)
	}
	stop()
	l.End()
	select {
	case err := <-served:
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the tunnel goes on in a server that has ended")
	}
}
