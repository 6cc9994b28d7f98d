package certificate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/mtls"
	"trivet/internal/part"
	"trivet/site"
)

const day = 24 * time.Hour

func authority(t testing.TB, name string, lifetime time.Duration) *Authority {
	t.Helper()
	a, err := NewAuthority(name, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func state(lifetime time.Duration) part.State {
	return part.State{
		Server: "s1",
		Site: &site.Site{
			Name: "foobar", Domain: "www.foobar.com", Aliases: []string{"foobar.com"}, Address: "10.0.0.10",
			Certificate: site.Certificate{Lifetime: site.Duration(lifetime)},
		},
		Members: []part.Member{{Name: "s1", Address: "10.0.0.1"}, {Name: "s2", Address: "10.0.0.2"}},
	}
}

func config(t testing.TB) Config {
	return Config{
		Server: "s1", Identities: authority(t, "identities", 365*day), Visitors: authority(t, "visitors", 365*day),
		Parts: []string{part.Node, part.Web}, FilesDir: t.TempDir(),
	}
}

func applied(t testing.TB, conf Config, s part.State) *Certificates {
	t.Helper()
	c := New(conf)
	if err := c.Apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return c
}

func leaf(t testing.TB, p part.KeyPair) *x509.Certificate {
	t.Helper()
	if _, err := tls.X509KeyPair(p.Certificate, p.Key); err != nil {
		t.Fatal(err)
	}
	cert, err := parseLeaf(p.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// run runs c until the test's bubble ends.
func run(t *testing.T, c *Certificates) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func TestAuthorityRoundTrip(t *testing.T) {
	a, b := authority(t, "a", day), authority(t, "b", day)
	cert, key := a.PEM()
	if _, err := ParseAuthority(cert, key); err != nil {
		t.Fatal(err)
	}
	_, other := b.PEM()
	if _, err := ParseAuthority(cert, other); err == nil {
		t.Error("key of another: got nil, want an error")
	}
	p, err := a.Issue(Request{Site: "foobar", Server: "s1", Part: "web", Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseAuthority(p.Certificate, p.Key); err == nil {
		t.Error("a leaf as authority: got nil, want an error")
	}
}

func TestIssue(t *testing.T) {
	c := applied(t, config(t), state(day))
	id := leaf(t, c.Identity(part.Web))
	if got, want := id.URIs[0].String(), "spiffe://foobar/s1/web"; got != want {
		t.Errorf("identity: got %s, want %s", got, want)
	}
	if id.Subject.CommonName != "web" || id.IPAddresses[0].String() != "10.0.0.1" || len(id.DNSNames) != 0 {
		t.Errorf("identity: got %v %v %v", id.Subject, id.IPAddresses, id.DNSNames)
	}
	web := leaf(t, c.Site()[0])
	if diff := cmp.Diff([]string{"www.foobar.com", "foobar.com"}, web.DNSNames); diff != "" {
		t.Errorf("site's names (-want +got):\n%s", diff)
	}
	if slices.Contains(web.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || len(web.URIs) > 0 {
		t.Error("site's certificate could be used as an identity")
	}
	console := leaf(t, c.Console())
	for _, host := range []string{"10.0.0.1", "10.0.0.10", "www.foobar.com"} {
		if err := console.VerifyHostname(host); err != nil {
			t.Errorf("console: %v", err)
		}
	}
	// The two roots do not vouch for each other's.
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.Bundle())
	if _, err := web.Verify(x509.VerifyOptions{Roots: roots}); err == nil {
		t.Error("site's certificate is from the identities' root")
	}
	if id := c.Identity("database"); id.Certificate != nil {
		t.Error("got an identity for a part that was not named")
	}
	if err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// What is issued serves as an identity on the wire.
func TestIdentityInHandshakeSource(t *testing.T) {
	c := applied(t, config(t), state(day))
	var s mtls.Source
	if err := s.Set(c.Identity(part.Node), c.Bundle()); err != nil {
		t.Fatal(err)
	}
}

func TestRequests(t *testing.T) {
	a := authority(t, "a", day)
	tests := []struct {
		name string
		r    Request
		want string
	}{
		{"no part", Request{Site: "foobar", Server: "s1", Lifetime: time.Hour}, "make no identity"},
		{"nothing to prove", Request{Visitor: true, Lifetime: time.Hour}, "neither names nor addresses"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := a.Issue(tt.r); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	p, err := a.Issue(Request{Visitor: true, Addresses: []netip.Addr{netip.MustParseAddr("::1")}, Lifetime: 100 * day})
	if err != nil {
		t.Fatal(err)
	}
	if got := leaf(t, p).NotAfter; !got.Equal(a.cert.NotAfter) {
		t.Errorf("end: got %v, want the authority's %v", got, a.cert.NotAfter)
	}
}

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := config(t)
		var told atomic.Int32
		conf.Changed = func() { told.Add(1) }
		c := applied(t, conf, state(day))
		run(t, c)
		first := leaf(t, c.Identity(part.Web))
		time.Sleep(15 * time.Hour)
		if got := leaf(t, c.Identity(part.Web)); !got.Equal(first) {
			t.Error("renewed before two thirds of its lifetime")
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if got := leaf(t, c.Identity(part.Web)); got.Equal(first) {
			t.Error("not renewed after three quarters of its lifetime")
		}
		if told.Load() < 2 {
			t.Errorf("changed: told %d times, want at least 2", told.Load())
		}
		// For a month nothing ever comes near its end.
		for range 30 * 24 {
			time.Sleep(time.Hour)
			synctest.Wait()
			if err := c.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, i := range c.List() {
			if time.Until(i.NotAfter) <= 0 || !i.Renews.Before(i.NotAfter) {
				t.Errorf("%s: ends %v, renews %v", i.Name, i.NotAfter, i.Renews)
			}
		}
	})
}

func TestChangedIsToldAfterFiles(t *testing.T) {
	conf := config(t)
	var c *Certificates
	conf.Changed = func() {
		cert, err := os.ReadFile(filepath.Join(conf.FilesDir, "cluster-tls", "cert.pem"))
		if err != nil || string(cert) != string(c.Identity(part.Node).Certificate) {
			t.Errorf("changed was told before the file was written: %v", err)
		}
	}
	c = New(conf)
	for range 2 {
		if err := c.Apply(t.Context(), state(day)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Renew(part.Node); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cluster-tls/cert.pem", "cluster-tls/key.pem", "cluster-tls/ca.pem", "certificate/site.pem", "certificate/console.pem"} {
		info, err := os.Stat(filepath.Join(conf.FilesDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s: got mode %v, want 0600", name, got)
		}
	}
}

func TestRestartKeepsVisitors(t *testing.T) {
	conf := config(t)
	first := applied(t, conf, state(day))
	same := applied(t, conf, state(day))
	if !leaf(t, same.Site()[0]).Equal(leaf(t, first.Site()[0])) || !leaf(t, same.Console()).Equal(leaf(t, first.Console())) {
		t.Error("restart: visitors' certificates were issued anew")
	}
	changes := map[string]func(*part.State, *Config){
		"domain":    func(s *part.State, _ *Config) { s.Site.Domain = "foo.bar" },
		"lifetime":  func(s *part.State, _ *Config) { s.Site.Certificate.Lifetime = site.Duration(time.Hour) },
		"authority": func(_ *part.State, c *Config) { c.Visitors = authority(t, "other", 365*day) },
		"torn file": func(_ *part.State, c *Config) {
			_ = os.WriteFile(filepath.Join(c.FilesDir, "certificate", "site.pem"), []byte("-----BEGIN CERT"), 0o600)
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			s, conf := state(day), conf
			change(&s, &conf)
			if leaf(t, applied(t, conf, s).Site()[0]).Equal(leaf(t, first.Site()[0])) {
				t.Error("got the former certificate, want a new one")
			}
		})
	}
}

func TestApplyAgain(t *testing.T) {
	c := applied(t, config(t), state(day))
	before := c.List()
	if err := c.Apply(t.Context(), state(day)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, c.List()); diff != "" {
		t.Errorf("the same state changed something (-before +after):\n%s", diff)
	}
	moved := state(day)
	moved.Members[0].Address = "10.0.0.7"
	if err := c.Apply(t.Context(), moved); err != nil {
		t.Fatal(err)
	}
	if got := leaf(t, c.Identity(part.Node)).IPAddresses[0].String(); got != "10.0.0.7" {
		t.Errorf("address: got %s, want 10.0.0.7", got)
	}
	before = c.List()
	if err := c.Apply(t.Context(), part.State{Site: moved.Site}); err == nil {
		t.Error("a state without this server: got nil, want an error")
	}
	if diff := cmp.Diff(before, c.List()); diff != "" {
		t.Errorf("a bad state changed something (-before +after):\n%s", diff)
	}
}

func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := config(t)
		conf.Visitors = nil
		c := New(conf)
		check := func(want string) {
			t.Helper()
			if err := c.Check(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("check: got %v, want %q", err, want)
			}
		}
		check("no state yet")
		if err := c.Apply(t.Context(), state(day)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(21 * time.Hour) // nobody runs it: nothing is renewed
		check("certificate node ends in 3h0m0s and was not renewed")
		time.Sleep(4 * time.Hour)
		check("certificate web ended")
		c.issued[part.Web].begins = time.Now().Add(time.Hour)
		check("clock was set back")
		time.Sleep(365 * day)
		check(`authority "identities" ended`)
		conf.Identities.cert.NotBefore = time.Now().Add(time.Hour)
		check("this server's clock is wrong")
		if err := c.Renew(); err == nil || !strings.Contains(err.Error(), "clock is wrong") {
			t.Errorf("renew with a wrong clock: got %v", err)
		}
	})
}

// A disk that cannot be written keeps the former certificates in force, and renewal is tried again.
func TestWriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := config(t)
		c := applied(t, conf, state(day))
		run(t, c)
		before := c.Identity(part.Node)
		blocked := filepath.Join(conf.FilesDir, "cluster-tls")
		if err := os.RemoveAll(blocked); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(blocked, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(21 * time.Hour)
		if got := c.Identity(part.Node); string(got.Certificate) != string(before.Certificate) {
			t.Error("got a new identity that is not in the files")
		}
		if err := c.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "renew certificate") && !strings.Contains(err.Error(), "write certificate") {
			t.Errorf("check: got %v, want the reason", err)
		}
		if err := os.Remove(blocked); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := c.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
