package mtls_test

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"trivet/internal/mtls"
	"trivet/internal/mtls/mtlstest"
	"trivet/internal/part"
)

func source(t *testing.T, id part.KeyPair, bundle []byte) *mtls.Source {
	t.Helper()
	s := new(mtls.Source)
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
	r, foreign := mtlstest.New(t, "foobar"), mtlstest.New(t, "foobar")
	web := r.Identity(t, "s1", "web")
	server := source(t, web, r.Bundle)
	tests := []struct {
		name     string
		client   *mtls.Source
		toServer string
		toPart   string
		want     string // part of the error; empty: it works
	}{
		{"right part", source(t, r.Identity(t, "s2", "balancer"), r.Bundle), "s1", "web", ""},
		{"any server", source(t, r.Identity(t, "s2", "node"), r.Bundle), "", "web", ""},
		{"wrong client", source(t, r.Identity(t, "s2", "app"), r.Bundle), "s1", "web", "app of s2 is not one of balancer, node"},
		{"wrong server", source(t, r.Identity(t, "s2", "node"), r.Bundle), "s3", "web", "web of s1, not web of s3"},
		{"wrong server part", source(t, r.Identity(t, "s2", "node"), r.Bundle), "s1", "monitor", "not monitor of s1"},
		{"other trust domain", source(t, r.Named(t, mtls.ID("other", "s2", "node"), time.Hour), r.Bundle), "s1", "web", "verify peer"},
		{"foreign root", source(t, foreign.Identity(t, "s2", "node"), r.Bundle), "s1", "web", "unknown authority"},
		{"server of a foreign root", source(t, r.Identity(t, "s2", "node"), foreign.Bundle), "s1", "web", "unknown authority"},
		{"expired client", source(t, r.Named(t, mtls.ID("foobar", "s2", "node"), -time.Second), r.Bundle), "s1", "web", "expired"},
		{"no identity yet", new(mtls.Source), "s1", "web", "no identity yet"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cs, err := shake(t, mtls.Server(server, "balancer", "node"), mtls.Client(tt.client, tt.toServer, tt.toPart))
			switch {
			case tt.want == "" && err != nil:
				t.Fatalf("got %v, want a connection", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Fatalf("got error %v, want one with %q", err, tt.want)
			case tt.want == "" && cs.Version != tls.VersionTLS13:
				t.Errorf("got version %x, want TLS 1.3", cs.Version)
			}
			if tt.want == "" {
				if gotServer, _, err := mtls.Peer(cs); err != nil || gotServer != "s2" {
					t.Errorf("got peer %q, %v, want s2", gotServer, err)
				}
			}
		})
	}
}

func TestNoClientCertificate(t *testing.T) {
	r := mtlstest.New(t, "foobar")
	s := source(t, r.Identity(t, "s1", "web"), r.Bundle)
	bare := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the test's stranger
	if _, err := shake(t, mtls.Server(s, "node"), bare); err == nil {
		t.Fatal("got a connection, want a refusal")
	}
	old := mtls.Client(s, "s1", "web")
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, err := shake(t, mtls.Server(s, "web"), old); err == nil {
		t.Fatal("got a TLS 1.2 connection, want a refusal")
	}
}

func TestNeverResumed(t *testing.T) {
	r := mtlstest.New(t, "foobar")
	s := source(t, r.Identity(t, "s1", "web"), r.Bundle)
	client := mtls.Client(s, "s1", "web")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	l, err := tls.Listen("tcp", "127.0.0.1:0", mtls.Server(s, "web"))
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
	r := mtlstest.New(t, "foobar")
	s := source(t, r.Identity(t, "s1", "web"), r.Bundle)
	server, client := mtls.Server(s, "web"), mtls.Client(s, "s1", "web")
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
	next := mtlstest.New(t, "foobar")
	if err := s.Set(next.Identity(t, "s1", "web"), next.Bundle); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(l, client); err == nil {
		t.Fatal("got a resumed connection by a root that is gone, want a refusal")
	}
}

// The authority changes under load, with both roots in the bundle in between.
func TestRotationUnderLoad(t *testing.T) {
	old, next := mtlstest.New(t, "foobar"), mtlstest.New(t, "foobar")
	both := append(append([]byte{}, old.Bundle...), next.Bundle...)
	server := source(t, old.Identity(t, "s1", "web"), old.Bundle)
	client := source(t, old.Identity(t, "s2", "node"), old.Bundle)
	l, err := tls.Listen("tcp", "127.0.0.1:0", mtls.Server(server, "node"))
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
			if _, err := dial(l, mtls.Client(client, "s1", "web")); err != nil {
				t.Errorf("connection %d: %v", n, err)
			}
			n++
		}
	})
	set := func(s *mtls.Source, r *mtlstest.Authority, server, partName string, bundle []byte) {
		if err := s.Set(r.Identity(t, server, partName), bundle); err != nil {
			t.Error(err)
		}
	}
	for range 20 {
		set(server, old, "s1", "web", both)
		set(client, old, "s2", "node", both)
		set(server, next, "s1", "web", both)
		set(client, next, "s2", "node", both)
	}
	set(server, next, "s1", "web", next.Bundle)
	set(client, next, "s2", "node", next.Bundle)
	close(done)
	wg.Wait()
	if n := <-made; n == 0 {
		t.Error("got no connection during the rotation, want some")
	}
}

func TestSetKeepsOldOnError(t *testing.T) {
	r := mtlstest.New(t, "foobar")
	good := r.Identity(t, "s1", "web")
	s := source(t, good, r.Bundle)
	other := r.Identity(t, "s1", "web")
	tests := []struct {
		name   string
		id     part.KeyPair
		bundle []byte
	}{
		{"no identity", part.KeyPair{}, r.Bundle},
		{"key of another", part.KeyPair{Certificate: good.Certificate, Key: other.Key}, r.Bundle},
		{"no server in it", r.Named(t, "spiffe://foobar/web", time.Hour), r.Bundle},
		{"no bundle", good, nil},
		{"broken bundle", good, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := s.Set(tt.id, tt.bundle); err == nil {
				t.Fatal("got nil, want an error")
			}
			if _, err := shake(t, mtls.Server(s, "web"), mtls.Client(s, "s1", "web")); err != nil {
				t.Errorf("former identity: got %v, want a connection", err)
			}
		})
	}
}
