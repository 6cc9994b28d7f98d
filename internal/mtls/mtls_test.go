package mtls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"trivet/internal/part"
)

// root is an authority of the test.
type root struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newRoot(t *testing.T) *root {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &root{cert: cert, key: key, pem: encode("CERTIFICATE", der)}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// issue signs an identity that is valid from a minute ago until the given time from now.
func (r *root) issue(t *testing.T, id string, lifetime time.Duration) part.KeyPair {
	t.Helper()
	u, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), URIs: []*url.URL{u},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, r.cert, key.Public(), r.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return part.KeyPair{Certificate: encode("CERTIFICATE", der), Key: encode("PRIVATE KEY", pkcs8)}
}

func source(t *testing.T, id part.KeyPair, bundle []byte) *Source {
	t.Helper()
	s := new(Source)
	if err := s.Set(id, bundle); err != nil {
		t.Fatal(err)
	}
	return s
}

// shake connects client to server over loopback, passes a byte each way, and
// returns what either end says, and the server's view.
func shake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return dial(l, client)
}

func dial(l net.Listener, client *tls.Config) (tls.ConnectionState, error) {
	type answer struct {
		cs  tls.ConnectionState
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		cs, err := accept(l)
		answers <- answer{cs, err}
	}()
	err := connect(l.Addr().String(), client)
	a := <-answers
	return a.cs, errors.Join(err, a.err)
}

func accept(l net.Listener) (tls.ConnectionState, error) {
	c, err := l.Accept()
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.CopyN(c, c, 1); err != nil {
		return tls.ConnectionState{}, err
	}
	return c.(*tls.Conn).ConnectionState(), nil
}

func connect(address string, config *tls.Config) error {
	c, err := tls.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

func TestHandshake(t *testing.T) {
	r, foreign := newRoot(t), newRoot(t)
	web := r.issue(t, ID("foobar", "s1", "web"), time.Hour)
	server := source(t, web, r.pem)
	tests := []struct {
		name     string
		client   *Source
		toServer string
		toPart   string
		want     string // part of the error; empty: it works
	}{
		{"right part", source(t, r.issue(t, ID("foobar", "s2", "balancer"), time.Hour), r.pem), "s1", "web", ""},
		{"any server", source(t, r.issue(t, ID("foobar", "s2", "node"), time.Hour), r.pem), "", "web", ""},
		{"wrong client", source(t, r.issue(t, ID("foobar", "s2", "app"), time.Hour), r.pem), "s1", "web", "app of s2 is not one of balancer, node"},
		{"wrong server", source(t, r.issue(t, ID("foobar", "s2", "node"), time.Hour), r.pem), "s3", "web", "web of s1, not web of s3"},
		{"wrong server part", source(t, r.issue(t, ID("foobar", "s2", "node"), time.Hour), r.pem), "s1", "monitor", "not monitor of s1"},
		{"other trust domain", source(t, r.issue(t, ID("other", "s2", "node"), time.Hour), r.pem), "s1", "web", "verify peer"},
		{"foreign root", source(t, foreign.issue(t, ID("foobar", "s2", "node"), time.Hour), r.pem), "s1", "web", "unknown authority"},
		{"server of a foreign root", source(t, r.issue(t, ID("foobar", "s2", "node"), time.Hour), foreign.pem), "s1", "web", "unknown authority"},
		{"expired client", source(t, r.issue(t, ID("foobar", "s2", "node"), -time.Second), r.pem), "s1", "web", "expired"},
		{"no identity yet", new(Source), "s1", "web", "no identity yet"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cs, err := shake(t, Server(server, "balancer", "node"), Client(tt.client, tt.toServer, tt.toPart))
			switch {
			case tt.want == "" && err != nil:
				t.Fatalf("got %v, want a connection", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Fatalf("got error %v, want one with %q", err, tt.want)
			case tt.want == "" && cs.Version != tls.VersionTLS13:
				t.Errorf("got version %x, want TLS 1.3", cs.Version)
			}
			if tt.want == "" {
				if gotServer, _, err := Peer(cs); err != nil || gotServer != "s2" {
					t.Errorf("got peer %q, %v, want s2", gotServer, err)
				}
			}
		})
	}
}

func TestNoClientCertificate(t *testing.T) {
	r := newRoot(t)
	s := source(t, r.issue(t, ID("foobar", "s1", "web"), time.Hour), r.pem)
	bare := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the test's stranger
	if _, err := shake(t, Server(s, "node"), bare); err == nil {
		t.Fatal("got a connection, want a refusal")
	}
	old := Client(s, "s1", "web")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, err := shake(t, Server(s, "web"), old); err == nil {
		t.Fatal("got a TLS 1.2 connection, want a refusal")
	}
}

func TestNeverResumed(t *testing.T) {
	r := newRoot(t)
	s := source(t, r.issue(t, ID("foobar", "s1", "web"), time.Hour), r.pem)
	client := Client(s, "s1", "web")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	l, err := tls.Listen("tcp", "127.0.0.1:0", Server(s, "web"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for range 3 {
		cs, err := dial(l, client)
		if err != nil {
			t.Fatal(err)
		}
		if cs.DidResume {
			t.Fatal("got a resumed session, want a full handshake each time")
		}
	}
}

// A server that resumes must still judge the old certificate by the new bundle.
func TestResumedIsVerified(t *testing.T) {
	r := newRoot(t)
	s := source(t, r.issue(t, ID("foobar", "s1", "web"), time.Hour), r.pem)
	server, client := Server(s, "web"), Client(s, "s1", "web")
	server.SessionTicketsDisabled = false
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if _, err := dial(l, client); err != nil {
		t.Fatal(err)
	}
	if cs, err := dial(l, client); err != nil || !cs.DidResume {
		t.Fatalf("got resumed %v, %v, want a resumed session", cs.DidResume, err)
	}
	next := newRoot(t)
	if err := s.Set(next.issue(t, ID("foobar", "s1", "web"), time.Hour), next.pem); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(l, client); err == nil {
		t.Fatal("got a resumed connection by a root that is gone, want a refusal")
	}
}

// The authority changes under load, with both roots in the bundle in between.
func TestRotationUnderLoad(t *testing.T) {
	old, next := newRoot(t), newRoot(t)
	both := append(append([]byte{}, old.pem...), next.pem...)
	server := source(t, old.issue(t, ID("foobar", "s1", "web"), time.Hour), old.pem)
	client := source(t, old.issue(t, ID("foobar", "s2", "node"), time.Hour), old.pem)
	l, err := tls.Listen("tcp", "127.0.0.1:0", Server(server, "node"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()

	done := make(chan struct{})
	made := make(chan int, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		n := 0
		for {
			select {
			case <-done:
				made <- n
				return
			default:
			}
			if _, err := dial(l, Client(client, "s1", "web")); err != nil {
				t.Errorf("connection %d: %v", n, err)
			}
			n++
		}
	})
	set := func(s *Source, r *root, server, partName string, bundle []byte) {
		if err := s.Set(r.issue(t, ID("foobar", server, partName), time.Hour), bundle); err != nil {
			t.Error(err)
		}
	}
	for range 20 {
		set(server, old, "s1", "web", both)
		set(client, old, "s2", "node", both)
		set(server, next, "s1", "web", both)
		set(client, next, "s2", "node", both)
	}
	set(server, next, "s1", "web", next.pem)
	set(client, next, "s2", "node", next.pem)
	close(done)
	wg.Wait()
	if n := <-made; n == 0 {
		t.Error("got no connection during the rotation, want some")
	}
}

func TestSetKeepsOldOnError(t *testing.T) {
	r := newRoot(t)
	good := r.issue(t, ID("foobar", "s1", "web"), time.Hour)
	s := source(t, good, r.pem)
	other := r.issue(t, ID("foobar", "s1", "web"), time.Hour)
	tests := []struct {
		name   string
		id     part.KeyPair
		bundle []byte
	}{
		{"no identity", part.KeyPair{}, r.pem},
		{"key of another", part.KeyPair{Certificate: good.Certificate, Key: other.Key}, r.pem},
		{"no server in it", r.issue(t, "spiffe://foobar/web", time.Hour), r.pem},
		{"no bundle", good, nil},
		{"broken bundle", good, encode("CERTIFICATE", []byte("x"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := s.Set(tt.id, tt.bundle); err == nil {
				t.Fatal("got nil, want an error")
			}
			if _, err := shake(t, Server(s, "web"), Client(s, "s1", "web")); err != nil {
				t.Errorf("former identity: got %v, want a connection", err)
			}
		})
	}
}
