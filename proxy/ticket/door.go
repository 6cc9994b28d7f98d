// Package ticket is how visitors are met by TLS: with 1.3, or 1.2 with
// ephemeral keys and authenticated ciphers only, with a key exchange that
// withstands quantum computers, the certificate of the name that they ask for,
// and session tickets that all servers of a site can open, because they share
// the keys. Certificates and keys are swapped while connections go on.
package ticket

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

// ErrNoCertificate is why a handshake fails before the first SetCertificates.
var ErrNoCertificate = errors.New("no certificate yet")

// Pair is a certificate chain, the leaf first, and its key, in PEM.
type Pair struct{ Certificate, Key []byte }

// Door holds what visitors are met with. Make one by New. It is safe for
// concurrent use; what is set takes effect with the next handshake.
type Door struct {
	tls  *tls.Config
	held atomic.Pointer[certificates]
}

// New is a door at which protocols (ALPN) are offered. done, if not nil, is
// called at the end of each handshake, and refuses it by an error.
func New(done func(tls.ConnectionState) error, protocols ...string) *Door {
	d := new(Door)
	d.tls = &tls.Config{
		MinVersion:       tls.VersionTLS12,
		CipherSuites:     suites(),
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		NextProtos:       protocols,
		GetCertificate:   d.certificate,
		VerifyConnection: done,
	}
	return d
}

// suites of TLS 1.2; those of 1.3 are all authenticated.
func suites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// TLS is the configuration for servers. It is the one that SetKeys changes: a
// clone of it keeps the keys of its time.
func (d *Door) TLS() *tls.Config { return d.tls }

// SetKeys sets the keys of session tickets, see Keys. Until then each process
// has its own. On error the former ones stay in force.
func (d *Door) SetKeys(text string) error {
	keys, err := Keys(text)
	if err != nil {
		return err
	}
	d.tls.SetSessionTicketKeys(keys)
	return nil
}

// Set sets certificates and keys, as SetCertificates and SetKeys do. No keys
// at all leave those in force.
func (d *Door) Set(pairs []Pair, keys string) error {
	if err := d.SetCertificates(pairs); err != nil {
		return fmt.Errorf("set visitors' certificates: %w", err)
	}
	if keys == "" {
		return nil
	}
	if err := d.SetKeys(keys); err != nil {
		return fmt.Errorf("set keys of session tickets: %w", err)
	}
	return nil
}

// SetCertificates sets the certificates; the first answers for unknown names.
// None at all leaves those in force: better an old certificate than none. So
// does an error.
func (d *Door) SetCertificates(pairs []Pair) error {
	if len(pairs) == 0 {
		return nil
	}
	held, err := readCertificates(pairs)
	if err != nil {
		return err
	}
	d.held.Store(held)
	return nil
}

// Ready says whether there is a certificate.
func (d *Door) Ready() bool { return d.held.Load() != nil }

func (d *Door) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	held := d.held.Load()
	if held == nil {
		return nil, ErrNoCertificate
	}
	return held.forName(hello.ServerName), nil
}

// certificates by the names that they are for, in lower case; a wildcard by
// what follows its asterisk.
type certificates struct {
	first           *tls.Certificate
	exact, wildcard map[string]*tls.Certificate
}

func readCertificates(pairs []Pair) (*certificates, error) {
	cs := &certificates{exact: map[string]*tls.Certificate{}, wildcard: map[string]*tls.Certificate{}}
	for i, p := range pairs {
		c, err := tls.X509KeyPair(p.Certificate, p.Key)
		if err == nil {
			err = dropRoot(&c)
		}
		if err != nil {
			return nil, fmt.Errorf("read certificate %d: %w", i+1, err)
		}
		cs.add(&c)
	}
	return cs, nil
}

// dropRoot leaves out a root at the end of the chain: who trusts it has it.
func dropRoot(c *tls.Certificate) error {
	last := len(c.Certificate) - 1
	if last == 0 {
		return nil
	}
	root, err := x509.ParseCertificate(c.Certificate[last])
	if err != nil {
		return err
	}
	if bytes.Equal(root.RawIssuer, root.RawSubject) {
		c.Certificate = c.Certificate[:last]
	}
	return nil
}

func (cs *certificates) add(c *tls.Certificate) {
	if cs.first == nil {
		cs.first = c
	}
	for _, name := range c.Leaf.DNSNames {
		to, name := cs.exact, strings.ToLower(name)
		if rest, ok := strings.CutPrefix(name, "*."); ok {
			to, name = cs.wildcard, rest
		}
		if to[name] == nil {
			to[name] = c
		}
	}
}

func (cs *certificates) forName(name string) *tls.Certificate {
	name = strings.ToLower(name)
	if c := cs.exact[name]; c != nil {
		return c
	}
	if _, rest, ok := strings.Cut(name, "."); ok && cs.wildcard[rest] != nil {
		return cs.wildcard[rest]
	}
	return cs.first
}
