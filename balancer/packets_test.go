package balancer_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"trivet/balancer"
	"trivet/internal/metric"
	"trivet/internal/part"
	"trivet/proxy/proxytest"
	"trivet/site"
)

// mute is a packet socket whose process can die without a word.
type mute struct {
	net.PacketConn
	dead atomic.Bool
}

func (m *mute) WriteTo(p []byte, to net.Addr) (int, error) {
	if m.dead.Load() {
		return len(p), nil
	}
	return m.PacketConn.WriteTo(p, to)
}

// another runs one more balancer, by state, with HTTP/3 at address, until stop.
func (s *stand) another(state part.State, address string) (packets *mute, stop func()) {
	s.t.Helper()
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		s.t.Fatal(err)
	}
	packets = &mute{PacketConn: c}
	turn := make(chan struct{})
	close(turn)
	b := balancer.New(balancer.Config{
		Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry(),
		HTTP: proxytest.Listen(s.t), HTTPS: proxytest.Listen(s.t), QUIC: packets, Turn: turn,
	})
	ctx, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	if err := b.Apply(s.t.Context(), state); err != nil {
		s.t.Fatal(err)
	}
	return packets, func() {
		end()
		if err := <-done; err != nil {
			s.t.Errorf("Run: %v", err)
		}
	}
}

// TestSuccessorEndsHTTP3: a visitor whose balancer died learns from the next at
// the same address that its connection is gone, though the keys of session
// tickets were renewed meanwhile; from another server's balancer it does not.
func TestSuccessorEndsHTTP3(t *testing.T) {
	s := newStand(t, func(c *site.Site) { c.Balancer.HTTP3 = true })
	first, stop := s.another(s.state, "127.0.0.1:0")
	address := first.LocalAddr().String()
	var c *quic.Conn
	proxytest.Until(t, "the first balancer serves", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var err error
		c, err = quic.DialAddr(ctx, address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil)
		return err == nil
	})
	defer func() { _ = c.CloseWithError(0, "") }()
	first.dead.Store(true)
	stop()
	next := s.state
	next.Secrets = maps.Clone(next.Secrets)
	next.Secrets[part.SecretTicketKeys] = strings.Repeat("A", 43) + "="
	_, stop = s.another(next, address)
	defer stop()
	proxytest.Until(t, "the connection ends", func() bool {
		if st, err := c.OpenStream(); err == nil {
			_, _ = st.Write(make([]byte, 1000)) // a small packet is not answered, lest resets answer resets
		}
		return c.Context().Err() != nil
	})
	var reset *quic.StatelessResetError
	if err := context.Cause(c.Context()); !errors.As(err, &reset) {
		t.Errorf("got %v, want a stateless reset", err)
	}
}

// TestHTTP3LimitsFollowApply: what is applied goes for the next request of an
// open connection too, but for the size of a whole head.
func TestHTTP3LimitsFollowApply(t *testing.T) {
	s := newStand(t, func(c *site.Site) { c.Balancer.HTTP3 = true; c.Balancer.Limits.Head = 20_000 })
	tr := &http3.Transport{TLSClientConfig: s.tls()}
	defer func() { _ = tr.Close() }()
	ask := func(field, body int) int {
		t.Helper()
		r := request(t, "POST", "https://"+s.quic+"/")
		r.Host = domain
		r.Header.Set("X-Long", strings.Repeat("a", field))
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(make([]byte, body))), int64(body)
		resp, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	want := func(when string, field, body, status int) {
		t.Helper()
		if got := ask(field, body); got != status {
			t.Errorf("%s: a field of %d, a body of %d bytes: got %d, want %d", when, field, body, got, status)
		}
	}
	want("at first", 10_000, 2000, 200)
	s.change(func(c *site.Site) { c.Balancer.Limits.Head, c.Balancer.Limits.Body = 5000, 1000 })
	want("smaller, on the open connection", 10_000, 0, 431)
	want("smaller, on the open connection", 10, 2000, 413)
	s.change(func(c *site.Site) { c.Balancer.Limits.Head, c.Balancer.Limits.Body = 60_000, 0 })
	want("larger, on the open connection", 10_000, 2000, 200)
	_ = tr.Close()
	tr = &http3.Transport{TLSClientConfig: s.tls()}
	want("larger, on a new connection", 50_000, 2000, 200)
}
