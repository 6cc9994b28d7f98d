package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// hostName is whom the requests are for.
const hostName = "bench.test"

// identity is the certificate of all servers, ECDSA P-256, and how the visitors
// and the target speak TLS.
type identity struct {
	certificate, key, bundle string // paths; the bundle has both
	client, server           *tls.Config
}

func newIdentity(dir string) (identity, error) {
	id := identity{
		certificate: filepath.Join(dir, "certificate.pem"), key: filepath.Join(dir, "key.pem"), bundle: filepath.Join(dir, "bundle.pem"),
	}
	certificate, key, err := selfSigned()
	if err != nil {
		return id, fmt.Errorf("make a certificate: %w", err)
	}
	for path, data := range map[string][]byte{id.certificate: certificate, id.key: key, id.bundle: append(bytes.Clone(certificate), key...)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return id, fmt.Errorf("write a certificate: %w", err)
		}
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return id, fmt.Errorf("read the certificate: %w", err)
	}
	groups := []tls.CurveID{tls.X25519}
	id.client = &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: groups, ServerName: hostName, InsecureSkipVerify: true} //nolint:gosec // it was made above, for this run
	id.server = &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: groups, Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: true}
	return id, nil
}

func selfSigned() (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: hostName}, DNSNames: []string{hostName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &private.PublicKey, private)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

func filesDir(dir string) string { return filepath.Join(dir, "files") }

// writeFiles makes what is served from disk.
func writeFiles(dir string) error {
	if err := os.Mkdir(filesDir(dir), 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	for name, size := range map[string]int{"1k": 1 << 10, "1m": 1 << 20} {
		if err := os.WriteFile(filepath.Join(filesDir(dir), name), bytes.Repeat([]byte("trivet. "), size/8), 0o644); err != nil {
			return fmt.Errorf("write a file: %w", err)
		}
	}
	return nil
}
