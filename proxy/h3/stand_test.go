package h3

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"trivet/proxy/wire"
)

// stand is a server on loopback, and a client of quic-go's.
type stand struct {
	t       testing.TB
	server  *Server
	address string
	client  *http3.Transport
	drain   context.CancelFunc
	served  chan error
}

func serve(t testing.TB, cfg Config) *stand {
	t.Helper()
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	if cfg.TLS == nil {
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, drain := context.WithCancel(context.Background())
	s := &stand{t: t, server: New(cfg), address: c.LocalAddr().String(), drain: drain, served: make(chan error, 1)}
	s.client = &http3.Transport{TLSClientConfig: clientTLS(), QUICConfig: &quic.Config{}}
	go func() { s.served <- s.server.Serve(ctx, c) }()
	t.Cleanup(func() {
		_ = s.client.Close()
		drain()
		if s.served != nil {
			s.end()
		}
		_ = c.Close()
	})
	return s
}

// end waits for Serve to return.
func (s *stand) end() {
	s.t.Helper()
	select {
	case err := <-s.served:
		if err != nil {
			s.t.Errorf("Serve: %v", err)
		}
	case <-time.After(20 * time.Second):
		s.t.Error("Serve did not end within 20 s")
	}
	s.served = nil
}

func clientTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}
}

func certificate(t testing.TB) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.b"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (s *stand) url(path string) string { return "https://" + s.address + path }

func (s *stand) do(r *http.Request) (*http.Response, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
	s.t.Cleanup(cancel)
	a, err := s.client.RoundTrip(r.WithContext(ctx))
	if err != nil {
		s.t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer func() { _ = a.Body.Close() }()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		s.t.Fatalf("%s %s: read: %v", r.Method, r.URL, err)
	}
	return a, string(b)
}

func request(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func field(name, value string) wire.Field {
	return wire.Field{Name: []byte(name), Value: []byte(value), Kind: wire.KindOf([]byte(name))}
}

// answer is a whole one.
func answer(st *Stream, status int, fields []wire.Field, body string) error {
	if err := st.Head(status, fields, int64(len(body))); err != nil {
		return err
	}
	if _, err := st.Write([]byte(body)); err != nil {
		return err
	}
	return st.End(nil)
}

func random(t testing.TB, n int) []byte {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !f(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
