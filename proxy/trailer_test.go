package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quic-go/quic-go/http3"
)

// TestTrailersAreForwardedAsFields: of what follows a body, too, a target gets
// nothing that the forwarder does not keep, and nothing that frames.
func TestTrailersAreForwardedAsFields(t *testing.T) {
	got := make(chan []string, 1)
	target := raw(t, "a", func(c net.Conn, r *bufio.Reader) {
		for line := ""; line != "0\r\n"; { // of the last chunk
			var err error
			if line, err = r.ReadString('\n'); err != nil {
				return
			}
		}
		var trailer []string
		for {
			line, err := r.ReadString('\n')
			if err != nil || line == "\r\n" {
				break
			}
			trailer = append(trailer, strings.ToLower(strings.TrimSpace(line)))
		}
		got <- trailer
		_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	claims := []string{
		"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "True-Client-IP", "Proxy",
		"X-Original-URL", "X-Trivet-Client", "X-Trivet-Check", "X_Forwarded_For", "X-Request-ID", "traceparent", "tracestate",
	}
	trailer := http.Header{"X-Sum": {"9"}, "Grpc-Status": {"0"}}
	for _, name := range claims {
		trailer[name] = []string{"untrue"}
	}
	s, cfg := secure(t, stand{targets: targetsOf(target)})
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	own, ca := selfSigned(t)
	go func() { served <- s.server.ServePacket(ctx, packets, own, nil) }()
	quic := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: ca, ServerName: "www.foobar.com"}}
	for name, send := range map[string]struct {
		address string
		by      http.RoundTripper
	}{
		"HTTP/1.1": {s.address, &http.Transport{TLSClientConfig: cfg.Clone(), DisableKeepAlives: true}},
		"HTTP/2.0": {s.address, &http.Transport{TLSClientConfig: cfg.Clone(), ForceAttemptHTTP2: true}},
		"HTTP/3.0": {packets.LocalAddr().String(), quic},
	} {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+send.address+"/", struct{ io.Reader }{strings.NewReader("body")})
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = trailer
		resp, err := send.by.RoundTrip(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = resp.Body.Close()
		if resp.Proto != name || resp.StatusCode != 204 {
			t.Errorf("got %d by %s, want 204 by %s", resp.StatusCode, resp.Proto, name)
		}
		has := <-got
		slices.Sort(has)
		if diff := cmp.Diff([]string{"grpc-status: 0", "x-sum: 9"}, has); diff != "" {
			t.Errorf("%s: trailer of the target's request: -want +got\n%s", name, diff)
		}
	}
	_ = quic.Close()
	stop()
	if err := <-served; err != nil {
		t.Errorf("ServePacket: %v", err)
	}
}
