package ticket

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"trivet/internal/mtls/mtlstest"
)

// authority signs the certificates of a test.
type authority struct {
	*mtlstest.Authority
	t testing.TB
}

func newAuthority(t testing.TB) authority { return authority{mtlstest.New(t, "test"), t} }

// pair is a certificate for names, followed by the root.
func (a authority) pair(names ...string) Pair {
	leaf := a.Certificate(a.t, names...)
	return Pair{append(leaf.Certificate, a.Bundle...), leaf.Key}
}

// door is one with certificates for these names each, and keys if any.
func (a authority) door(keys string, names ...string) *Door {
	d := New(nil, "h2", "http/1.1")
	var pairs []Pair
	for _, n := range names {
		pairs = append(pairs, a.pair(strings.Fields(n)...))
	}
	if err := d.SetCertificates(pairs); err != nil {
		a.t.Fatal(err)
	}
	if keys != "" {
		if err := d.SetKeys(keys); err != nil {
			a.t.Fatal(err)
		}
	}
	return d
}

// connection is both ends of one over loopback.
func connection(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.Dial("tcp", l.Addr().String()); err == nil {
		server, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// meet makes a connection over which the server says hello, and returns what
// the client sees of it.
func meet(t testing.TB, server *tls.Config, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := connection(t)
	defer func() { _ = a.Close() }()
	go func() {
		defer func() { _ = b.Close() }()
		s := tls.Server(b, server)
		if _, err := io.WriteString(s, "hello"); err == nil {
			_ = s.Close()
		}
	}()
	c := tls.Client(a, client)
	got, err := io.ReadAll(c)
	if err == nil && string(got) != "hello" {
		t.Errorf("got %q, want hello", got)
	}
	return c.ConnectionState(), err
}

// fresh is the text of one new key.
func fresh() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	return base64.StdEncoding.EncodeToString(key[:])
}

func TestKeys(t *testing.T) {
	one := fresh()
	for _, c := range []struct {
		in   string
		want int
	}{
		{one, 1},
		{one + " " + fresh() + "\n" + fresh(), 3},
		{"", 0},
		{strings.Repeat(one+" ", 4), 0},
		{"AAAA", 0},
		{"not base64", 0},
	} {
		keys, err := Keys(c.in)
		if len(keys) != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%q: got %d keys, %v; want %d", c.in, len(keys), err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), one) {
			t.Error("the error tells a key")
		}
	}
}

func TestResumptionAcrossServers(t *testing.T) {
	a := newAuthority(t)
	old := fresh()
	one, two := a.door(old, "www.foobar.com"), a.door(old, "www.foobar.com")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg := &tls.Config{RootCAs: a.Pool(), ServerName: "www.foobar.com", MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		steps := []struct {
			name string
			at   *Door
			keys string // set at both before
			want bool
		}{
			{"first", one, old, false},
			{"same server", one, "", true},
			{"other server", two, "", true},
			{"after a rotation", two, fresh() + " " + old, true},
			{"with a ticket of the new key", one, "", true},
			{"all keys gone", one, fresh(), false},
			{"again", two, "", true},
		}
		for _, s := range steps {
			if s.keys != "" {
				for _, d := range []*Door{one, two} {
					if err := d.SetKeys(s.keys); err != nil {
						t.Fatal(err)
					}
				}
			}
			state, err := meet(t, s.at.TLS(), cfg)
			if err != nil || state.DidResume != s.want {
				t.Fatalf("%s, %s: got resumed %v, %v; want %v", tls.VersionName(version), s.name, state.DidResume, err, s.want)
			}
		}
	}
}

func TestCertificateByName(t *testing.T) {
	a := newAuthority(t)
	d := a.door("", "www.foobar.com foobar.com", "*.shop.example", "api.shop.example")
	for name, want := range map[string]string{
		"www.foobar.com":   "www.foobar.com",
		"FooBar.com":       "www.foobar.com",
		"a.shop.example":   "*.shop.example",
		"api.shop.example": "api.shop.example",
		"a.b.shop.example": "www.foobar.com",
		"shop.example":     "www.foobar.com",
		"unknown.example":  "www.foobar.com",
		"":                 "www.foobar.com",
	} {
		state, err := meet(t, d.TLS(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if got := state.PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("%q: got the certificate of %s, want that of %s", name, got, want)
		}
		if n := len(state.PeerCertificates); n != 1 {
			t.Errorf("%q: got a chain of %d, want it without the root", name, n)
		}
	}
}

func TestCertificatesAreSwapped(t *testing.T) {
	a := newAuthority(t)
	d := New(nil)
	cfg := &tls.Config{RootCAs: a.Pool(), ServerName: "www.foobar.com"}
	if _, err := meet(t, d.TLS(), cfg); err == nil {
		t.Error("a handshake without a certificate succeeded")
	}
	if _, err := d.certificate(&tls.ClientHelloInfo{}); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("got %v, want %v", err, ErrNoCertificate)
	}
	serial := func() string {
		state, err := meet(t, d.TLS(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.String()
	}
	set := func(pairs ...Pair) error { return d.SetCertificates(pairs) }
	if err := set(a.pair("www.foobar.com")); err != nil {
		t.Fatal(err)
	}
	first := serial()
	if err := set(); err != nil || serial() != first {
		t.Errorf("no certificate at all: got %v, want that the former one stays", err)
	}
	if err := set(Pair{Certificate: []byte("x")}); err == nil || serial() != first {
		t.Errorf("a broken certificate: got %v, want an error, and that the former one stays", err)
	}
	if err := set(a.pair("www.foobar.com")); err != nil || serial() == first {
		t.Errorf("a new certificate: %v, or the old one is still shown", err)
	}
}

func TestKeyExchangeAndSuites(t *testing.T) {
	a := newAuthority(t)
	d := a.door("", "www.foobar.com")
	for _, c := range []struct {
		name string
		cfg  *tls.Config
		want tls.CurveID // 0: refused
	}{
		{"default client", &tls.Config{}, tls.X25519MLKEM768},
		{"without post-quantum", &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}, tls.X25519},
		{"P-256 only", &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP256}}, tls.CurveP256},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, tls.X25519},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, 0},
		{"CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, 0},
		{"P-521 only", &tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP521}}, 0},
	} {
		c.cfg.RootCAs, c.cfg.ServerName = a.Pool(), "www.foobar.com"
		state, err := meet(t, d.TLS(), c.cfg)
		if (err == nil) != (c.want != 0) || err == nil && state.CurveID != c.want {
			t.Errorf("%s: got %v, %v; want %v", c.name, state.CurveID, err, c.want)
		}
	}
}

func TestDoneRefuses(t *testing.T) {
	a := newAuthority(t)
	var seen atomic.Int32
	d := New(func(tls.ConnectionState) error { seen.Add(1); return io.ErrNoProgress })
	if err := d.SetCertificates([]Pair{a.pair("a.b")}); err != nil {
		t.Fatal(err)
	}
	if _, err := meet(t, d.TLS(), &tls.Config{InsecureSkipVerify: true}); err == nil || seen.Load() != 1 {
		t.Errorf("got %v after %d calls, want a refusal after 1", err, seen.Load())
	}
}
