package certificate

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"trivet/internal/mtls"
	"trivet/internal/part"
)

// backdate is how far before its issue a certificate begins: a server whose clock
// is an hour late has to get back to the others.
const backdate = 2 * time.Hour

// Authority is a root that signs: an ECDSA P-256 key and its own certificate.
// It signs leaves only. It is immutable.
type Authority struct {
	cert            *x509.Certificate
	key             crypto.Signer
	certPEM, keyPEM []byte
}

// NewAuthority makes a new root with the given common name.
func NewAuthority(name string, lifetime time.Duration) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of authority %s: %w", name, err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name, Organization: []string{"trivet"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(lifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key of authority %s: %w", name, err)
	}
	return ParseAuthority(encode("CERTIFICATE", der), keyPEM)
}

// ParseAuthority reads what PEM returned.
func ParseAuthority(certPEM, keyPEM []byte) (*Authority, error) {
	cert, err := parseLeaf(certPEM)
	if err != nil {
		return nil, fmt.Errorf("parse authority: %w", err)
	}
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("parse authority: no key in it")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse authority's key: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || !ec.PublicKey.Equal(cert.PublicKey) || !cert.IsCA {
		return nil, errors.New("parse authority: certificate and key do not belong together")
	}
	return &Authority{cert: cert, key: ec, certPEM: certPEM, keyPEM: keyPEM}, nil
}

// PEM returns the root's certificate, which everyone may know, and its key (PKCS #8), which nobody else may.
func (a *Authority) PEM() (cert, key []byte) { return a.certPEM, a.keyPEM }

// Request says what a certificate is for.
type Request struct {
	Site, Server, Part string // of a server's identity
	Addresses          []netip.Addr
	Names              []string
	Lifetime           time.Duration // cut off at the authority's own end
	Visitor            bool          // for browsers: proves names and addresses, and cannot be used by a client
}

// Issue makes a new key and signs a certificate for it. An identity's common
// name is its part: etcd judges its peers by it.
func (a *Authority) Issue(r Request) (part.KeyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return part.KeyPair{}, fmt.Errorf("make key: %w", err)
	}
	tmpl, err := a.template(r)
	if err != nil {
		return part.KeyPair{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		return part.KeyPair{}, fmt.Errorf("sign certificate: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return part.KeyPair{}, fmt.Errorf("encode key: %w", err)
	}
	return part.KeyPair{Certificate: encode("CERTIFICATE", der), Key: keyPEM}, nil
}

func (a *Authority) template(r Request) (*x509.Certificate, error) {
	now := time.Now()
	if err := a.valid(now); err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		NotBefore:             now.Add(-backdate),
		NotAfter:              earlier(now.Add(r.Lifetime), a.cert.NotAfter),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		DNSNames:              r.Names,
	}
	for _, ip := range r.Addresses {
		tmpl.IPAddresses = append(tmpl.IPAddresses, net.IP(ip.AsSlice()))
	}
	if r.Visitor {
		if len(r.Names)+len(r.Addresses) == 0 {
			return nil, errors.New("sign certificate: neither names nor addresses to prove")
		}
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		return tmpl, nil
	}
	id, err := url.Parse(mtls.ID(r.Site, r.Server, r.Part))
	if err != nil || r.Site == "" || r.Server == "" || r.Part == "" {
		return nil, fmt.Errorf("sign certificate: site, server and part %q, %q, %q make no identity", r.Site, r.Server, r.Part)
	}
	tmpl.Subject = pkix.Name{CommonName: r.Part, Organization: []string{r.Site}, OrganizationalUnit: []string{r.Server}}
	tmpl.URIs = []*url.URL{id}
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return tmpl, nil
}

// valid says why the authority cannot sign at the time now.
func (a *Authority) valid(now time.Time) error {
	name := a.cert.Subject.CommonName
	if now.Before(a.cert.NotBefore) {
		return fmt.Errorf("this server's clock is wrong: it shows %s, but authority %q began %s; set the clock",
			stamp(now), name, stamp(a.cert.NotBefore))
	}
	if !now.Before(a.cert.NotAfter) {
		return fmt.Errorf("authority %q ended %s, and this server's clock shows %s: set the clock or make a new authority",
			name, stamp(a.cert.NotAfter), stamp(now))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encode("PRIVATE KEY", der), nil
}

// parseLeaf parses the first certificate in data.
func parseLeaf(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no certificate in it")
	}
	return x509.ParseCertificate(block.Bytes)
}
