package upstream

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// inert is a connection on which nothing happens.
type inert struct{ net.Conn }

func (inert) Close() error                { return nil }
func (inert) SetDeadline(time.Time) error { return nil }

func dialInert(context.Context) (net.Conn, error) { return inert{}, nil }

// inertTarget is a target for what needs no socket.
func inertTarget(name string, weight int) *Target {
	return NewTarget(TargetConfig{Name: name, Dial: dialInert, State: Up, Weight: weight, IdleTimeout: time.Minute})
}

func inertPool(s Settings, weights ...int) *Pool {
	for i, w := range weights {
		s.Targets = append(s.Targets, inertTarget(string(rune('a'+i)), w))
	}
	p := NewPool(PoolConfig{})
	p.Set(s)
	return p
}

// dialed returns a connection with a request on it.
func dialed(t testing.TB, g *Target) *Conn {
	t.Helper()
	c, err := g.Dial(context.Background())
	if err != nil {
		t.Fatalf("dial %s: %v", g.Name(), err)
	}
	c.Begin()
	return c
}

// exchange puts one request with that outcome on g.
func exchange(t testing.TB, g *Target, took time.Duration, o Outcome) {
	t.Helper()
	now := Now()
	c := g.Take(now, false)
	if c == nil {
		c = dialed(t, g)
	} else {
		c.Begin()
	}
	c.Await(now)
	if o == OK || o == Bad {
		if err := c.Came(now + int64(took)); err != nil {
			t.Fatalf("answer of %s: %v", g.Name(), err)
		}
	}
	c.Done(o, o == OK || o == Bad)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

// server speaks as much HTTP as is needed, for each request: a path that
// begins with /freeze gets no answer.
type server struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func listen(t *testing.T, network string, config *tls.Config) *server {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	s := &server{Listener: l}
	var wg sync.WaitGroup
	wg.Go(func() { s.serve(&wg) })
	t.Cleanup(func() {
		_ = l.Close()
		s.closeAll()
		wg.Wait()
	})
	return s
}

func (s *server) serve(wg *sync.WaitGroup) {
	for {
		c, err := s.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		wg.Go(func() { answerAll(c) })
	}
}

// count is how many connections came.
func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// closeAll closes the connections that came, but does not stop.
func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
}

func answerAll(c net.Conn) {
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		switch r.URL.Path {
		case "/freeze":
			_, _ = io.Copy(io.Discard, in)
			return
		case "/unwell":
			_, err = io.WriteString(c, "HTTP/1.1 503 \r\nContent-Length: 21\r\n\r\nthe database is down\n")
		case "/chunks":
			_, err = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n5\r\n\ntwo\n\r\n0\r\n\r\n")
		case "/interim":
			_, err = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
		case "/close":
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nto the end")
			return
		case "/nonsense":
			_, err = io.WriteString(c, "SSH-2.0\r\n\r\n")
		default:
			_, err = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
		if err != nil {
			return
		}
	}
}

// ask puts one whole request on c.
func ask(t *testing.T, c *Conn, path string) {
	t.Helper()
	c.Begin()
	_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", path)
	if err != nil {
		t.Fatalf("write a request: %v", err)
	}
	c.Await(Now())
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("read an answer: %v", err)
	}
	if err := c.Came(Now()); err != nil {
		t.Fatalf("taken back: %v", err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	c.Done(OK, true)
}

// identity is a certificate for localhost and what trusts it.
func identity(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: roots, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(0)}
}

// stand is one target with a server behind it, plain, unix or tls.
func stand(t *testing.T, kind string) (*server, *Target) {
	t.Helper()
	network, secured := "tcp", (*tls.Config)(nil)
	c := TargetConfig{Name: "one", State: Up}
	switch kind {
	case "unix":
		network = "unix"
	case "tls":
		secured, c.TLS = identity(t)
	}
	s := listen(t, network, secured)
	c.Dial = Dialer(network, s.Addr().String())
	g := NewTarget(c)
	t.Cleanup(g.Retire)
	return s, g
}

var kinds = []string{"plain", "unix", "tls"}
