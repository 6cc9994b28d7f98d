package balancer_test

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/quic-go/quic-go/http3"

	"trivet/internal/metric"
	"trivet/proxy/proxytest"
	"trivet/site"
)

// claims are what a visitor may not say of itself.
var claims = []string{
	"X-Real-IP", "X-Client-IP", "X-Cluster-Client-IP", "X-Originating-IP", "X-Remote-IP", "X-Remote-Addr", "X-ProxyUser-IP",
	"X-Forwarder-For", "Client-IP", "True-Client-IP", "CF-Connecting-IP", "Fastly-Client-IP", "Proxy", "X-Original-URL",
	"X-Original-URI", "X-Original-Host", "X-Original-Method", "X-Rewrite-URL", "X-Host", "X-HTTP-Host-Override", "X-Scheme",
	"X-URL-Scheme", "X-SSL", "Front-End-HTTPS", "X-Trivet-Client", "X-Trivet-Check", "Forwarded", "X-Forwarded-For",
	"X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded", "X-Request-ID", "traceparent", "tracestate",
	"X_Forwarded_For",
}

// passedClaims: of a visitor that is passed through, too, the app is told who
// asks by trivet alone.
func (s *stand) passedClaims() {
	heads := make(chan http.Header, 1)
	s.withApps(func(_ http.ResponseWriter, r *http.Request) { heads <- r.Header })
	for _, h2 := range []bool{false, true} {
		r := request(s.t, "GET", "https://"+domain+"/")
		for _, name := range claims {
			r.Header[name] = []string{"untrue"}
		}
		ask(s.t, s.visitor(h2), r)
		got := <-heads
		for name, values := range got {
			if strings.Contains(strings.Join(values, ""), "untrue") || len(values) > 1 {
				s.t.Errorf("h2 %v: the app was told %s: %q", h2, name, values)
			}
		}
		for _, name := range []string{"User-Agent", "Accept-Encoding"} {
			delete(got, name)
		}
		want := []string{"Forwarded", "Traceparent", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id"}
		if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got))); diff != "" {
			s.t.Errorf("h2 %v: fields of the app's request: -want +got\n%s", h2, diff)
		}
	}
}

// withApps makes h the app of every server.
func (s *stand) withApps(h http.HandlerFunc) {
	for _, srv := range s.servers {
		srv.setApp(h)
	}
}

// passedLimits: what visitors may send is bounded where their TLS ends, from
// the next Apply on.
func (s *stand) passedLimits() {
	s.withApps(func(http.ResponseWriter, *http.Request) {})
	before := *s.state.Site
	s.change(func(c *site.Site) { c.Balancer.Limits.Body, c.Balancer.Limits.Head = 1000, 4096 })
	for _, h2 := range []bool{false, true} {
		r, _ := http.NewRequest("POST", "https://"+domain+"/", strings.NewReader(strings.Repeat("x", 1001)))
		if resp, _ := ask(s.t, s.visitor(h2), r); resp.StatusCode != 413 {
			s.t.Errorf("h2 %v: too large a body: got %d, want 413", h2, resp.StatusCode)
		}
	}
	r := request(s.t, "GET", "https://"+domain+"/")
	r.Header.Set("X-Large", strings.Repeat("x", 5000))
	if resp, _ := ask(s.t, s.visitor(false), r); resp.StatusCode != 431 {
		s.t.Errorf("too large a head: got %d, want 431", resp.StatusCode)
	}
	s.change(func(c *site.Site) { *c = before })
}

// passedCounts: visitors are counted where their TLS ends.
func (s *stand) passedCounts() {
	var all string
	for _, srv := range s.servers {
		all += s.scrape(srv.meters)
	}
	for _, want := range []string{"trivet_requests_total{", "trivet_request_seconds_count", "trivet_in_flight "} {
		if !strings.Contains(all, want) {
			s.t.Errorf("the web servers do not count %s", want)
		}
	}
}

// TestHalfOpenPassed: who says nothing counts for the limit of connections, too.
func TestHalfOpenPassed(t *testing.T) {
	s := newStand(t, func(c *site.Site) {
		c.Balancer.TLS, c.Balancer.HTTP3, c.Balancer.Limits.Connections = site.TLSPassthrough, false, 2
	})
	var last net.Conn
	for range 3 {
		c, err := net.Dial("tcp", s.https)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		last = c
	}
	_ = last.SetReadDeadline(time.Now().Add(2 * time.Second)) // the time for a hello is 5 s
	if _, err := last.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("one too many: got %v, want it closed at once", err)
	}
}

// scrape returns what a server counts.
func (s *stand) scrape(meters *metric.Registry) string {
	dir, err := os.MkdirTemp("", "m") // short enough for a socket
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, stop := context.WithCancel(s.t.Context())
	served := make(chan error, 1)
	go func() { served <- meters.Serve(ctx, dir, "web", "") }()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "web.sock"))
	}}}
	var text string
	proxytest.Until(s.t, "the meters are read", func() bool {
		resp, err := c.Get("http://web/")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		text = string(b)
		return err == nil
	})
	stop()
	if err := <-served; err != nil {
		s.t.Error(err)
	}
	return text
}

// TestHTTP3IsOfferedOnly: where the site offers no HTTP/3, none is served to
// who comes in spite of it.
func TestHTTP3IsOfferedOnly(t *testing.T) {
	s := newStand(t, func(c *site.Site) { c.Balancer.HTTP3 = true })
	get := func() error {
		cfg := s.tls()
		tr := &http3.Transport{TLSClientConfig: cfg}
		defer func() { _ = tr.Close() }()
		r := request(t, "GET", "https://"+s.quic+"/")
		r.Host = domain
		resp, err := tr.RoundTrip(r.WithContext(t.Context()))
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	if err := get(); err != nil {
		t.Errorf("offered: got %v", err)
	}
	s.change(func(c *site.Site) { c.Balancer.HTTP3 = false })
	if get() == nil {
		t.Error("not offered: got an answer")
	}
	s.change(func(c *site.Site) { c.Balancer.HTTP3 = true })
	if err := get(); err != nil {
		t.Errorf("offered again: got %v", err)
	}
}

// TestLimitsReachTheWebServer: what a balancer lets through after an Apply, its
// web servers do, too.
func TestLimitsReachTheWebServer(t *testing.T) {
	s := newStand(t)
	s.change(func(c *site.Site) { c.Balancer.Limits.Head = 200_000 })
	r := request(t, "GET", "https://"+domain+"/")
	r.Header.Set("X-Large", strings.Repeat("x", 100_000))
	resp, body := ask(t, s.visitor(false), r)
	if resp.StatusCode != 200 {
		t.Errorf("got %d %q, want 200", resp.StatusCode, body)
	}
}
