package proxy_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quic-go/quic-go/http3"
)

// TestHTTP3: requests by QUIC go the same way.
func TestHTTP3(t *testing.T) {
	var seen atomic.Int64
	cfg, ca := selfSigned(t)
	s := startServer(t, stand{targets: targetsOf(well(t, &seen))})
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.server.ServePacket(ctx, packets, cfg, nil) }()
	tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: ca, ServerName: "www.foobar.com"}}
	for i, body := range []string{"", "small", strings.Repeat("x", 300_000)} {
		r, err := http.NewRequest("POST", "https://"+packets.LocalAddr().String()+"/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 200 || string(got) != "well" {
			t.Errorf("got %d %q, %v, want 200 well", resp.StatusCode, got, err)
		}
		if r := s.done.last(t, i+1); r.received != int64(len(body)) || r.status != 200 {
			t.Errorf("recorded %+v, want %d bytes received", r, len(body))
		}
	}
	_ = tr.Close()
	stop()
	if err := <-served; err != nil {
		t.Errorf("ServePacket: %v", err)
	}
}
