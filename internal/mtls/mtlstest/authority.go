// Package mtlstest has an authority that lives as long as a test, for identities
// and visitors' certificates. Only tests import it.
package mtlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"trivet/internal/mtls"
	"trivet/internal/part"
)

// Authority signs identities of a site's parts and visitors' certificates, for
// an hour each. It is safe for concurrent use.
type Authority struct {
	Bundle []byte // its root, PEM

	site   string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial atomic.Int64
}

// New makes an authority, with a root of its own, for a site.
func New(t testing.TB, site string) *Authority {
	t.Helper()
	a := &Authority{site: site, key: newKey(t)}
	a.cert = &x509.Certificate{
		Subject: pkix.Name{CommonName: site}, URIs: []*url.URL{{Scheme: "spiffe", Host: site}},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := a.sign(t, a.cert, a.key, time.Hour)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, a.Bundle = cert, encode("CERTIFICATE", der)
	return a
}

// Identity signs one of a part on a server.
func (a *Authority) Identity(t testing.TB, server, partName string) part.KeyPair {
	t.Helper()
	return a.Named(t, mtls.ID(a.site, server, partName), time.Hour)
}

// Named signs an identity with any name, which ends after lifetime.
func (a *Authority) Named(t testing.TB, name string, lifetime time.Duration) part.KeyPair {
	t.Helper()
	id, err := url.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return a.Issue(t, &x509.Certificate{URIs: []*url.URL{id}}, lifetime)
}

// Certificate signs one for visitors.
func (a *Authority) Certificate(t testing.TB, names ...string) part.KeyPair {
	t.Helper()
	return a.Issue(t, &x509.Certificate{DNSNames: names}, time.Hour)
}

// Source has an identity of a part on a server, and trusts the authority.
func (a *Authority) Source(t testing.TB, server, partName string) *mtls.Source {
	t.Helper()
	s := &mtls.Source{}
	if err := s.Set(a.Identity(t, server, partName), a.Bundle); err != nil {
		t.Fatal(err)
	}
	return s
}

// Pool is the root as a visitor trusts it.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// Issue signs template with a new key, for lifetime. Its serial number is the
// next one unless it has one.
func (a *Authority) Issue(t testing.TB, template *x509.Certificate, lifetime time.Duration) part.KeyPair {
	t.Helper()
	key := newKey(t)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der := a.sign(t, template, key, lifetime)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return part.KeyPair{Certificate: encode("CERTIFICATE", der), Key: encode("PRIVATE KEY", private)}
}

func (a *Authority) sign(t testing.TB, template *x509.Certificate, key *ecdsa.PrivateKey, lifetime time.Duration) []byte {
	t.Helper()
	if template.SerialNumber == nil {
		template.SerialNumber = big.NewInt(a.serial.Add(1))
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
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
