package balancer_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"trivet/balancer"
	"trivet/internal/metric"
	"trivet/internal/mtls/mtlstest"
	"trivet/internal/part"
	"trivet/proxy/proxytest"
	"trivet/site"
	"trivet/web"
)

const domain = "www.foobar.com"

// stand is one balancer before three servers, each a web server with one
// instance of an app, reached by a wire that can be cut.
type stand struct {
	t       *testing.T
	ca      *mtlstest.Authority
	b       *balancer.Balancer
	state   part.State
	servers []*server
	http    string // addresses
	https   string
	quic    string
	access  *proxytest.Lines
	meters  *metric.Registry
	stop    context.CancelFunc
	done    chan error
}

type server struct {
	name   string
	wire   *proxytest.Wire
	web    *web.Web
	state  part.State
	access *proxytest.Lines
	meters *metric.Registry
	app    http.HandlerFunc
	mu     sync.Mutex
}

func (s *server) setApp(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.app = h
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	h := s.app
	s.mu.Unlock()
	h(w, r)
}

func newSite() *site.Site {
	s := site.Default()
	s.Name, s.Domain, s.Aliases = "foobar", domain, []string{"foobar.com"}
	s.App.Source = "app"
	s.Balancer.Health.Timeout = site.Duration(500 * time.Millisecond)
	s.Balancer.Timeout = site.Duration(10 * time.Second)
	s.Balancer.SlowStart = 0
	for i := range 3 {
		s.Servers = append(s.Servers, site.Server{Name: fmt.Sprintf("s%d", i+1), Weight: site.DefaultWeight})
	}
	return &s
}

// newStand starts all of it and waits until every backend is in service.
func newStand(t *testing.T, change ...func(*site.Site)) *stand {
	t.Helper()
	s := &stand{t: t, ca: mtlstest.New(t, "foobar"), access: &proxytest.Lines{}}
	s.state = part.State{
		Site: newSite(), Server: "s1", Bundle: s.ca.Bundle, Identity: s.ca.Identity(t, "s1", part.Balancer),
		Certificates: []part.KeyPair{s.ca.Certificate(t, domain, "foobar.com")},
	}
	for _, c := range change {
		c(s.state.Site)
	}
	s.state.Secrets = map[string]string{part.SecretSticky: "secret", part.SecretTicketKeys: base64.StdEncoding.EncodeToString(make([]byte, 32))}
	for i := range 3 {
		s.addServer(fmt.Sprintf("s%d", i+1))
	}
	s.start()
	proxytest.Until(t, "all backends in service", func() bool { return s.b.Check(t.Context()) == nil })
	return s
}

func (s *stand) addServer(name string) {
	srv := &server{name: name, app: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }}
	dir := s.t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "static"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "static", "style.css"), []byte("css"), 0o644); err != nil {
		s.t.Fatal(err)
	}
	l := proxytest.Listen(s.t)
	srv.state = part.State{
		Site: s.state.Site, Server: name, Bundle: s.ca.Bundle, Identity: s.ca.Identity(s.t, name, part.Web),
		Certificates: s.state.Certificates, Secrets: s.state.Secrets,
		Release:   part.Release{Hash: "r", Dir: dir},
		Instances: []part.Instance{{Name: "1-1", Network: "unix", Address: s.startApp(srv)}},
	}
	srv.access, srv.meters = &proxytest.Lines{}, metric.NewRegistry()
	srv.web = web.New(web.Config{Log: slog.New(slog.DiscardHandler), Metrics: srv.meters, Listener: l, Access: srv.access})
	if err := srv.web.Apply(s.t.Context(), srv.state); err != nil {
		s.t.Fatal(err)
	}
	s.background(srv.web.Run)
	srv.wire = proxytest.NewWire(s.t, l.Addr().String())
	s.servers = append(s.servers, srv)
	s.state.Members = append(s.state.Members, part.Member{Name: name, Address: srv.wire.Address(), Alive: true})
}

func (s *stand) startApp(h http.Handler) string {
	path := filepath.Join(s.t.TempDir(), "app")
	l, err := net.Listen("unix", path)
	if err != nil {
		s.t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	s.background(func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
		_ = srv.Serve(l)
		return nil
	})
	return path
}

// background runs f until the test ends.
func (s *stand) background(f func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	s.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			s.t.Errorf("background: %v", err)
		}
	})
}

func (s *stand) start() {
	plain, secure := proxytest.Listen(s.t), proxytest.Listen(s.t)
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.quic = packets.LocalAddr().String()
	s.meters = metric.NewRegistry()
	turn := make(chan struct{})
	close(turn)
	s.http, s.https = plain.Addr().String(), secure.Addr().String()
	s.b = balancer.New(balancer.Config{
		Log: slog.New(slog.NewTextHandler(testWriter{s.t}, nil)), Metrics: s.meters,
		HTTP: plain, HTTPS: secure, QUIC: packets, Turn: turn, Access: s.access,
	})
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.done = stop, make(chan error, 1)
	go func() { s.done <- s.b.Run(ctx) }()
	s.t.Cleanup(func() {
		stop()
		if err := <-s.done; err != nil {
			s.t.Errorf("Run: %v", err)
		}
		close(s.done)
	})
	s.apply()
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

// change applies another site to the balancer and the web servers.
func (s *stand) change(f func(*site.Site)) {
	s.t.Helper()
	next := *s.state.Site
	f(&next)
	s.state.Site = &next
	for _, srv := range s.servers {
		srv.state.Site = &next
		if err := srv.web.Apply(s.t.Context(), srv.state); err != nil {
			s.t.Fatal(err)
		}
	}
	s.apply()
}

func (s *stand) apply() {
	s.t.Helper()
	if err := s.b.Apply(s.t.Context(), s.state); err != nil {
		s.t.Fatalf("Apply: %v", err)
	}
}

// tls is a visitor's configuration.
func (s *stand) tls() *tls.Config { return &tls.Config{RootCAs: s.ca.Pool(), ServerName: domain} }

// visitor returns a client for which every name is at the balancer.
func (s *stand) visitor(h2 bool) *http.Client {
	tr := &http.Transport{
		TLSClientConfig: s.tls(), ForceAttemptHTTP2: h2, MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			to := s.https
			if _, port, _ := net.SplitHostPort(address); port == "80" {
				to = s.http
			}
			return (&net.Dialer{}).DialContext(ctx, network, to)
		},
	}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask sends one request and returns the answer with its body read.
func ask(t *testing.T, c *http.Client, r *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(r.WithContext(t.Context()))
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, r.URL, err)
	}
	return resp, string(body)
}

func request(t *testing.T, method, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
