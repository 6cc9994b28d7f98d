// Package mtls is mutual TLS between the servers: each end shows an identity
// spiffe://<site>/<server>/<part> and says whom it accepts. It is the only
// importer of go-spiffe.
//
// Every connection is TLS 1.3 and is verified afresh against the bundle that
// is current at that moment. Sessions are never resumed, so that an identity
// or a root that was taken away cannot live on in a ticket; and should a
// caller turn resumption on in its own copy, the peer's certificate is still
// verified on each connection. An established connection outlives the
// identity that it was made with.
package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"trivet/internal/part"
)

// ErrNoIdentity is why a handshake fails before the first Set.
var ErrNoIdentity = errors.New("no identity yet")

// Source holds the current identity and the roots that identities are
// verified by. The zero value refuses every handshake until Set. It is safe
// for concurrent use; Set takes effect with the next handshake.
type Source struct{ now atomic.Pointer[identity] }

type identity struct {
	domain spiffeid.TrustDomain
	cert   tls.Certificate
	bundle *x509bundle.Bundle
}

// Set makes id the identity and bundle, one or two PEM roots, what peers are
// verified by. On error the former ones stay in force.
func (s *Source) Set(id part.KeyPair, bundle []byte) error {
	svid, err := x509svid.Parse(id.Certificate, id.Key)
	if err != nil {
		return fmt.Errorf("parse identity: %w", err)
	}
	if _, _, err := split(svid.ID); err != nil {
		return fmt.Errorf("parse identity: %w", err)
	}
	roots, err := parseRoots(bundle)
	if err != nil {
		return fmt.Errorf("parse bundle: %w", err)
	}
	domain := svid.ID.TrustDomain()
	cert := tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	s.now.Store(&identity{domain: domain, cert: cert, bundle: x509bundle.FromX509Authorities(domain, roots)})
	return nil
}

func parseRoots(bundle []byte) ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for rest := bundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		roots = append(roots, c)
	}
	if len(roots) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return roots, nil
}

// Server returns a configuration for the accepting end: the client must be one
// of the parts from, on any server of the same trust domain.
func Server(s *Source, from ...string) *tls.Config {
	from = slices.Clone(from)
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Small records at first are for slow networks: here they would only be
		// more writes, 13 rather than 5 for 64 kB.
		DynamicRecordSizingDisabled: true,
		ClientAuth:                  tls.RequireAnyClientCert, // verified by VerifyConnection
		SessionTicketsDisabled:      true,
		GetCertificate:              func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.certificate() },
		VerifyConnection: func(cs tls.ConnectionState) error {
			server, name, err := s.verify(cs)
			if err != nil {
				return err
			}
			if !slices.Contains(from, name) {
				return fmt.Errorf("accept client: %s of %s is not one of %s", name, server, strings.Join(from, ", "))
			}
			return nil
		},
	}
}

// Client returns a configuration for the connecting end: the server must be
// partName on server, or on any server of the same trust domain if server is
// empty.
func Client(s *Source, server, partName string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// As in Server.
		DynamicRecordSizingDisabled: true,
		InsecureSkipVerify:          true, //nolint:gosec // not by host name: VerifyConnection verifies the identity
		GetClientCertificate:        func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.certificate() },
		VerifyConnection: func(cs tls.ConnectionState) error {
			gotServer, gotPart, err := s.verify(cs)
			if err != nil {
				return err
			}
			if gotPart != partName || server != "" && gotServer != server {
				return fmt.Errorf("verify server: it is %s of %s, not %s of %s", gotPart, gotServer, partName, anyIfEmpty(server))
			}
			return nil
		},
	}
}

func anyIfEmpty(server string) string {
	if server == "" {
		return "any server"
	}
	return server
}

// ID is the identity of a part on a server of a site. The names must be lower
// case letters, digits, dots, hyphens and underscores, as the site's are.
func ID(site, server, partName string) string {
	return "spiffe://" + site + "/" + server + "/" + partName
}

// Peer returns who is at the other end of an established connection that
// Server's or Client's configuration has verified.
func Peer(cs tls.ConnectionState) (server, part string, err error) {
	if len(cs.PeerCertificates) == 0 {
		return "", "", errors.New("read peer's identity: it showed no certificate")
	}
	id, err := x509svid.IDFromCert(cs.PeerCertificates[0])
	if err != nil {
		return "", "", fmt.Errorf("read peer's identity: %w", err)
	}
	return split(id)
}

func (s *Source) certificate() (*tls.Certificate, error) {
	now := s.now.Load()
	if now == nil {
		return nil, ErrNoIdentity
	}
	return &now.cert, nil
}

// verify runs on every connection, resumed ones too: VerifyPeerCertificate would not.
func (s *Source) verify(cs tls.ConnectionState) (server, partName string, err error) {
	now := s.now.Load()
	if now == nil {
		return "", "", ErrNoIdentity
	}
	id, _, err := x509svid.Verify(cs.PeerCertificates, now.bundle)
	if err != nil {
		return "", "", fmt.Errorf("verify peer: %w", err)
	}
	if !id.MemberOf(now.domain) {
		return "", "", fmt.Errorf("verify peer: %s is not of this site", id)
	}
	return split(id)
}

func split(id spiffeid.ID) (server, partName string, err error) {
	server, partName, ok := strings.Cut(strings.TrimPrefix(id.Path(), "/"), "/")
	if !ok || server == "" || partName == "" || strings.Contains(partName, "/") {
		return "", "", fmt.Errorf("read identity %s: want spiffe://site/server/part", id)
	}
	return server, partName, nil
}
