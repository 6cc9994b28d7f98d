// Package proxytest has what the tests of proxy, web and balancer share: an
// authority for identities and visitors' certificates, a wire that can be cut
// or frozen, and the waiting for a condition. Only tests import it.
package proxytest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"trivet/internal/mtls"
	"trivet/internal/part"
)

// Authority signs identities and visitors' certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// Bundle is the root, PEM.
	Bundle []byte
}

// NewAuthority returns an authority with a new root for the site called name.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: name}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{cert: cert, key: key, Bundle: encode("CERTIFICATE", der)}
}

// Identity returns an identity of a part on a server.
func (a *Authority) Identity(t testing.TB, server, partName string) part.KeyPair {
	t.Helper()
	id, err := url.Parse(mtls.ID(a.cert.Subject.CommonName, server, partName))
	if err != nil {
		t.Fatal(err)
	}
	return a.issue(t, &x509.Certificate{URIs: []*url.URL{id}})
}

// Certificate returns a certificate for visitors.
func (a *Authority) Certificate(t testing.TB, names ...string) part.KeyPair {
	t.Helper()
	return a.issue(t, &x509.Certificate{DNSNames: names})
}

// Source returns a source with an identity of a part on a server.
func (a *Authority) Source(t testing.TB, server, partName string) *mtls.Source {
	t.Helper()
	s := &mtls.Source{}
	if err := s.Set(a.Identity(t, server, partName), a.Bundle); err != nil {
		t.Fatal(err)
	}
	return s
}

// Pool returns the root as a visitor trusts it.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *Authority) issue(t testing.TB, template *x509.Certificate) part.KeyPair {
	t.Helper()
	key := newKey(t)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return part.KeyPair{Certificate: encode("CERTIFICATE", der), Key: encode("PRIVATE KEY", private)}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
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

// Listen returns a listener on loopback that is closed with the test.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// Until waits for a condition, ten seconds at most.
func Until(t testing.TB, what string, met func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !met() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not so after ten seconds", what)
		}
	}
}

// Lines is what was written to an access log.
type Lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns all of it.
func (l *Lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Wire passes connections on to an address until it is told otherwise.
type Wire struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	mode  Mode
	moved *sync.Cond
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

// Mode is what a Wire does.
type Mode int

// The modes of a Wire.
const (
	Pass    Mode = iota
	Freeze       // connections are made and nothing passes, as by a stopped process
	Cut          // every connection, present and new, is reset
	Garbage      // new connections are answered nonsense, present ones are reset
)

// NewWire returns a wire to an address, in mode Pass.
func NewWire(t testing.TB, to string) *Wire {
	t.Helper()
	w := &Wire{l: Listen(t), to: to, conns: map[net.Conn]struct{}{}}
	w.moved = sync.NewCond(&w.mu)
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		_ = w.l.Close()
		w.Set(Cut)
		w.wg.Wait()
	})
	return w
}

// Address is where the wire begins.
func (w *Wire) Address() string { return w.l.Addr().String() }

// Set changes the mode.
func (w *Wire) Set(m Mode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mode = m
	if m == Cut || m == Garbage {
		for c := range w.conns {
			reset(c)
		}
	}
	w.moved.Broadcast()
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (w *Wire) accept() {
	for {
		c, err := w.l.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() { w.carry(c) })
	}
}

func (w *Wire) carry(c net.Conn) {
	w.mu.Lock()
	for w.mode == Freeze {
		w.moved.Wait()
	}
	mode := w.mode
	w.conns[c] = struct{}{}
	w.mu.Unlock()
	defer w.forget(c)
	switch mode {
	case Cut:
		reset(c)
		return
	case Garbage:
		_, _ = io.WriteString(c, "\x00\xffHTTP/9 nonsense\n\n")
		return
	}
	d, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	w.both(c, d)
}

func (w *Wire) forget(c net.Conn) {
	_ = c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

func (w *Wire) both(c, d net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { w.copy(c, d) })
	wg.Go(func() { w.copy(d, c) })
	wg.Wait()
}

// copy passes bytes on while the wire is not frozen.
func (w *Wire) copy(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		w.mu.Lock()
		for w.mode == Freeze {
			w.moved.Wait()
		}
		w.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
