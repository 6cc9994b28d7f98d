package balancer_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"

	"trivet/internal/metric"
	"trivet/proxy/proxytest"
	"trivet/site"
)

// counted sums up the series of that name that have all of labels, in all of meters.
func (s *stand) counted(meters []*metric.Registry, name string, labels ...string) (sum float64) {
	s.t.Helper()
	for _, m := range meters {
		for line := range strings.Lines(s.scrape(m)) {
			line = strings.TrimSpace(line)
			at := strings.LastIndexByte(line, ' ')
			series, value := line[:max(at, 0)], line[at+1:]
			if series != name && !strings.HasPrefix(series, name+"{") || !containsAll(series, labels) {
				continue
			}
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				s.t.Fatalf("%s: %v", line, err)
			}
			sum += n
		}
	}
	return sum
}

func containsAll(series string, labels []string) bool {
	for _, l := range labels {
		if !strings.Contains(series, l) {
			return false
		}
	}
	return true
}

// edgeMeters are those of whoever opens the visitors' TLS.
func (s *stand) edgeMeters(passthrough bool) (all []*metric.Registry) {
	if !passthrough {
		return []*metric.Registry{s.meters}
	}
	for _, srv := range s.servers {
		all = append(all, srv.meters)
	}
	return all
}

// asIs changes nothing of a site.
func asIs(*site.Site) {}

// throughBoth runs f with the visitors' TLS opened by the balancer, and by the web servers.
func throughBoth(t *testing.T, change func(*site.Site), f func(t *testing.T, s *stand, edge []*metric.Registry, passthrough bool)) {
	for name, passthrough := range map[string]bool{"reencrypt": false, "passthrough": true} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, change, func(c *site.Site) {
				if passthrough {
					c.Balancer.TLS, c.Balancer.HTTP3 = site.TLSPassthrough, false
				}
			})
			f(t, s, s.edgeMeters(passthrough), passthrough)
		})
	}
}

// TestHandshakesAreCounted: wherever visitors are met, and by QUIC.
func TestHandshakesAreCounted(t *testing.T) {
	throughBoth(t, asIs, func(t *testing.T, s *stand, edge []*metric.Registry, passthrough bool) {
		cfg := s.tls()
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for range 3 {
			getByTLS(t, s.https, cfg)
		}
		s.awaitHandshakes(edge, 1, 2, 0)
		if _, err := tls.Dial("tcp", s.https, &tls.Config{ServerName: domain}); err == nil {
			t.Error("a certificate that is not trusted: got no error")
		}
		s.awaitHandshakes(edge, 1, 2, 1)
		if passthrough {
			return
		}
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for range 3 {
			if err := s.getByQUIC(cfg); err != nil {
				t.Errorf("HTTP/3: %v", err)
			}
		}
		s.awaitHandshakes(edge, 2, 4, 1)
		if s.getByQUIC(&tls.Config{ServerName: domain}) == nil {
			t.Error("HTTP/3: a certificate that is not trusted: got no error")
		}
		s.awaitHandshakes(edge, 2, 4, 2)
	})
}

func (s *stand) awaitHandshakes(edge []*metric.Registry, whole, resumed, failed float64) {
	s.t.Helper()
	var got [3]float64
	defer func() {
		if s.t.Failed() {
			s.t.Logf("whole, resumed, failed: got %v", got)
		}
	}()
	proxytest.Until(s.t, "the handshakes are counted", func() bool {
		got = [3]float64{
			s.counted(edge, "trivet_tls_handshakes_total", `resumed="false"`, `version="TLS 1.3"`),
			s.counted(edge, "trivet_tls_handshakes_total", `resumed="true"`, `version="TLS 1.3"`),
			s.counted(edge, "trivet_tls_failures_total"),
		}
		return got == [3]float64{whole, resumed, failed}
	})
}

// getByTLS asks on a connection of its own.
func getByTLS(t *testing.T, address string, cfg *tls.Config) {
	t.Helper()
	c, err := tls.Dial("tcp", address, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+domain+"\r\nConnection: close\r\n\r\n")
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200") {
		t.Fatalf("got %q, %v", b, err)
	}
}

// getByQUIC asks by HTTP/3 on a connection of its own.
func (s *stand) getByQUIC(cfg *tls.Config) error {
	tr := &http3.Transport{TLSClientConfig: cfg}
	defer func() { _ = tr.Close() }()
	r := request(s.t, "GET", "https://"+s.quic+"/")
	r.Host = domain
	resp, err := tr.RoundTrip(r.WithContext(s.t.Context()))
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	return err
}

// TestTunnelsAreNoRequestsOfHours: they are counted, but for how long they took.
func TestTunnelsAreNoRequestsOfHours(t *testing.T) {
	throughBoth(t, asIs, func(t *testing.T, s *stand, edge []*metric.Registry, passthrough bool) {
		s.withApps(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				echoTunnel(w, r)
			}
		})
		s.socketByTCP()
		s.socketByHTTP2()
		const requests = "trivet_requests_total"
		proxytest.Until(t, "two tunnels and a request are counted", func() bool {
			return s.counted(edge, requests, `code="101"`) == 1 && s.counted(edge, requests, `method="other"`, `code="200"`) == 1 &&
				s.counted(edge, requests, `method="GET"`, `code="200"`) == 1
		})
		if n := s.counted(edge, "trivet_request_seconds_count"); n != 1 {
			t.Errorf("times at the edge: got %v, want 1, of the request", n)
		}
		webs := s.edgeMeters(true)
		proxytest.Until(t, "all are counted by the web servers", func() bool { return s.counted(webs, "trivet_web_requests_total") == 3 })
		if n := s.counted(webs, "trivet_web_request_seconds_count"); n != 1 {
			t.Errorf("times at the web servers: got %v, want 1, of the request", n)
		}
		if got := s.counted(edge, "trivet_request_bytes_total"); got != 10 {
			t.Errorf("bytes received: got %v, want 10, of two tunnels", got)
		}
		if got := s.counted(edge, "trivet_response_bytes_total"); got != 10 {
			t.Errorf("bytes sent: got %v, want 10, of two tunnels", got)
		}
	})
}

// socketByTCP opens a WebSocket by HTTP/1.1, has five bytes echoed and ends it.
func (s *stand) socketByTCP() {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.https, s.tls())
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "GET /socket HTTP/1.1\r\nHost: "+domain+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(c)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 101 {
		s.t.Fatalf("got %v, %v, want 101", resp, err)
	}
	echoed(s.t, c, r)
}

// socketByHTTP2 does it by HTTP/2, after an ordinary request: only by its answer
// the client learns that it may.
func (s *stand) socketByHTTP2() {
	s.t.Helper()
	cfg := s.tls()
	cfg.NextProtos = []string{"h2"}
	tr := &http2.Transport{TLSClientConfig: cfg} //nolint:staticcheck // that of net/http refuses :protocol
	defer tr.CloseIdleConnections()              //nolint:staticcheck // as above
	send := func(r *http.Request) *http.Response {
		r.URL.Host, r.Host = s.https, domain
		resp, err := tr.RoundTrip(r.WithContext(s.t.Context())) //nolint:staticcheck // as above
		if err != nil || resp.StatusCode != 200 {
			s.t.Fatalf("got %v, %v, want 200", resp, err)
		}
		return resp
	}
	first := send(request(s.t, "GET", "https://"+domain+"/"))
	_, _ = io.ReadAll(first.Body)
	_ = first.Body.Close()
	body, more := io.Pipe()
	resp := send(&http.Request{
		Method: "CONNECT", URL: &url.URL{Scheme: "https", Path: "/socket"}, Body: body, ContentLength: -1,
		Header: http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}},
	})
	defer func() { _ = resp.Body.Close() }()
	echoed(s.t, more, resp.Body)
	_ = more.Close()
}

func echoed(t *testing.T, w io.Writer, r io.Reader) {
	t.Helper()
	_, _ = io.WriteString(w, "hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(r, b); err != nil || string(b) != "hello" {
		t.Fatalf("got %q, %v, want hello", b, err)
	}
}

// TestPassedAreTunnels: what is passed through is in the balancer's status.
func TestPassedAreTunnels(t *testing.T) {
	s := newStand(t, func(c *site.Site) { c.Balancer.TLS, c.Balancer.HTTP3 = site.TLSPassthrough, false })
	var open []*tls.Conn
	for range 2 {
		c, err := tls.Dial("tcp", s.https, s.tls())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		open = append(open, c)
	}
	proxytest.Until(t, "two tunnels", func() bool { got := s.status(); return got.Tunnels == 2 && got.Connections == 2 })
	for _, c := range open {
		_ = c.Close()
	}
	proxytest.Until(t, "none", func() bool { got := s.status(); return got.Tunnels == 0 && got.Connections == 0 })
}
