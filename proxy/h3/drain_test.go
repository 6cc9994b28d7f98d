package h3

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

func TestDrain(t *testing.T) {
	begun, goOn := make(chan bool), make(chan bool)
	s := serve(t, Config{Handle: func(st *Stream) {
		if string(st.Request().Path) == "/slow" {
			close(begun)
			<-goOn
		}
		_ = answer(st, 200, nil, "whole")
	}})
	got := make(chan string, 1)
	go func() {
		_, b := s.do(request(t, "GET", s.url("/slow"), nil))
		got <- b
	}()
	<-begun
	s.drain()
	until(t, "new connections are refused", func() bool {
		other := &http3.Transport{TLSClientConfig: clientTLS(), QUICConfig: &quic.Config{HandshakeIdleTimeout: 200 * time.Millisecond}}
		defer func() { _ = other.Close() }()
		_, err := other.RoundTrip(request(t, "GET", s.url("/"), nil))
		return err != nil
	})
	close(goOn)
	if b := <-got; b != "whole" {
		t.Errorf("the request that was being answered got %q, want whole", b)
	}
	s.end()
}

func TestDrainGivesUp(t *testing.T) {
	begun := make(chan bool)
	s := serve(t, Config{Grace: 300 * time.Millisecond, Handle: func(st *Stream) {
		gone := make(chan bool)
		st.OnGone(func() { close(gone) })
		close(begun)
		<-gone
	}})
	failed := make(chan error, 1)
	go func() {
		_, err := s.client.RoundTrip(request(t, "GET", s.url("/"), nil))
		failed <- err
	}()
	<-begun
	s.drain()
	s.end()
	if err := <-failed; err == nil {
		t.Error("a request beyond the grace got an answer")
	}
}

func TestDrainOfIdleConnectionsIsQuick(t *testing.T) {
	s := serve(t, Config{Handle: func(st *Stream) { _ = answer(st, 200, nil, "x") }})
	s.do(request(t, "GET", s.url("/"), nil))
	start := time.Now()
	s.drain()
	s.end()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v, want about %v", took, goodbye)
	}
}

// silent is a socket of a process that dies without a word.
type silent struct {
	net.PacketConn
	dead atomic.Bool
}

func (s *silent) WriteTo(p []byte, to net.Addr) (int, error) {
	if s.dead.Load() {
		return len(p), nil
	}
	return s.PacketConn.WriteTo(p, to)
}

func TestSuccessorEndsConnectionsOfTheDead(t *testing.T) {
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	cfg := Config{
		TLS: &tls.Config{Certificates: []tls.Certificate{certificate(t)}}, Secret: []byte("secret"), Grace: time.Millisecond,
		Handle: func(st *Stream) { _ = answer(st, 200, nil, "") },
	}
	start := func(address string) (*silent, func()) {
		c, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		s := &silent{PacketConn: c}
		ctx, stop := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- New(cfg).Serve(ctx, s) }()
		return s, func() {
			stop()
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			_ = c.Close()
		}
	}
	first, stop := start("127.0.0.1:0")
	address := first.LocalAddr().String()
	c, err := quic.DialAddr(t.Context(), address, clientTLS(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseWithError(0, "") }()
	first.dead.Store(true)
	stop()
	_, stop = start(address)
	defer stop()
	st, err := c.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = st.Write(make([]byte, 1000)) // a small packet is not answered, lest resets answer resets
	select {
	case <-c.Context().Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the connection lives on after 10 s")
	}
	var reset *quic.StatelessResetError
	if err := context.Cause(c.Context()); !errors.As(err, &reset) {
		t.Errorf("got %v, want a stateless reset", err)
	}
}
