package certificate

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"trivet/internal/atomicfile"
	"trivet/internal/part"
)

// Folders and files in Config.FilesDir, folders 0700 and files 0600.
const (
	clusterDir = "cluster-tls" // the node's identity, for etcd
	visitorDir = "certificate" // <name>.pem: certificate and key of a visitors' certificate
	certFile   = "cert.pem"
	keyFile    = "key.pem"
	caFile     = "ca.pem"
)

// write brings to the disk those of fresh that belong there.
func (c *Certificates) write(fresh map[string]*issued) error {
	if c.conf.FilesDir == "" {
		return nil
	}
	for name, i := range fresh {
		var err error
		switch {
		case i.request.Visitor:
			err = c.store(visitorDir, name+".pem", slices.Concat(i.pair.Certificate, i.pair.Key))
		case name == part.Node:
			err = c.writeNode(i.pair)
		}
		if err != nil {
			return fmt.Errorf("write certificate %s: %w", name, err)
		}
	}
	return nil
}

// writeNode writes three files. One handshake may read the new key and the old
// certificate; etcd then simply tries again.
func (c *Certificates) writeNode(p part.KeyPair) error {
	if err := c.store(clusterDir, caFile, c.Bundle()); err != nil {
		return err
	}
	if err := c.store(clusterDir, keyFile, p.Key); err != nil {
		return err
	}
	return c.store(clusterDir, certFile, p.Certificate)
}

func (c *Certificates) store(dir, name string, data []byte) error {
	dir = filepath.Join(c.conf.FilesDir, dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, name)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return atomicfile.Write(path, data, 0o600, -1, -1)
}

// load reads a visitors' certificate that an earlier run kept; false if there
// is none, or it does not serve r any more.
func (c *Certificates) load(name string, r Request) (*issued, bool) {
	if c.conf.FilesDir == "" {
		return nil, false
	}
	data, err := os.ReadFile(filepath.Join(c.conf.FilesDir, visitorDir, name+".pem"))
	if err != nil {
		return nil, false
	}
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, false
	}
	pair := part.KeyPair{Certificate: data[:len(data)-len(rest)], Key: rest}
	i, err := describe(r, pair)
	if err != nil || !c.serves(pair, r) || !time.Now().Before(i.renews) || time.Now().Before(i.begins) {
		return nil, false
	}
	return i, true
}

// serves reports whether pair is whole, from the current root, and exactly what r asks for.
func (c *Certificates) serves(pair part.KeyPair, r Request) bool {
	if _, err := tls.X509KeyPair(pair.Certificate, pair.Key); err != nil {
		return false
	}
	leaf, err := parseLeaf(pair.Certificate)
	if err != nil || leaf.CheckSignatureFrom(c.conf.Visitors.cert) != nil {
		return false
	}
	var addresses []netip.Addr
	for _, ip := range leaf.IPAddresses {
		a, _ := netip.AddrFromSlice(ip)
		addresses = append(addresses, a.Unmap())
	}
	// Certificates count in whole seconds.
	life := leaf.NotAfter.Sub(leaf.NotBefore.Add(backdate))
	sameLife := (life-r.Lifetime).Abs() <= 2*time.Second || leaf.NotAfter.Equal(c.conf.Visitors.cert.NotAfter)
	return sameLife && slices.Equal(leaf.DNSNames, r.Names) && slices.Equal(addresses, r.Addresses)
}
