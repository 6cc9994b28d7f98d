package balancer

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"trivet/internal/part"
)

// certificates are those for visitors; the first answers for unknown names.
type certificates []tls.Certificate

func readCertificates(pairs []part.KeyPair) (certificates, error) {
	var cs certificates
	for i, p := range pairs {
		c, err := tls.X509KeyPair(p.Certificate, p.Key)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
		cs = append(cs, c)
	}
	return cs, nil
}

// certificates reads pairs. A state without any does not take away those in
// force: better an old certificate than none.
func (b *Balancer) certificates(pairs []part.KeyPair) (certificates, error) {
	if v := b.now.Load(); v != nil && len(pairs) == 0 {
		return v.certificates, nil
	}
	return readCertificates(pairs)
}

// forName returns the certificate for name, the server name that the visitor
// asked for; a visitor who asked for none, or another, gets the first.
func (cs certificates) forName(name string) (*tls.Certificate, error) {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	for i := range cs {
		if name != "" && cs[i].Leaf.VerifyHostname(name) == nil {
			return &cs[i], nil
		}
	}
	if len(cs) == 0 {
		return nil, errors.New("no certificate yet")
	}
	return &cs[0], nil
}

// tls is how visitors are met: TLS 1.3, or 1.2 with ephemeral keys and
// authenticated ciphers only. Certificates are those of the state in force.
func (b *Balancer) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return b.now.Load().certificates.forName(hello.ServerName)
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			b.meters.handshake(cs)
			return nil
		},
	}
}
