package balancer_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/mtls/mtlstest"
	"trivet/internal/part"
	"trivet/proxy/proxytest"
)

func TestRoutes(t *testing.T) {
	s := newStand(t)
	tests := []struct {
		method, url, host string
		status            int
		location          string
	}{
		{"GET", "http://www.foobar.com/a%2Fb?c=d", "", 301, "https://www.foobar.com/a%2Fb?c=d"},
		{"POST", "http://www.foobar.com/a", "", 308, "https://www.foobar.com/a"},
		{"GET", "http://foobar.com//evil.example", "", 301, "https://www.foobar.com//evil.example"},
		{"GET", "http://www.foobar.com/.well-known/acme-challenge/x", "", 404, ""},
		{"GET", "https://www.foobar.com/", "", 200, ""},
		{"GET", "https://www.foobar.com/", "WWW.FooBar.com.", 200, ""},
		{"GET", "https://www.foobar.com/", "www.foobar.com:8443", 200, ""},
		{"GET", "https://www.foobar.com/a?b", "foobar.com", 301, "https://www.foobar.com/a?b"},
		{"PUT", "https://www.foobar.com/a", "foobar.com", 308, "https://www.foobar.com/a"},
		{"GET", "https://www.foobar.com/", "other.example", 421, ""},
		{"GET", "https://www.foobar.com/", "10.0.0.1", 421, ""},
		{"TRACE", "https://www.foobar.com/", "", 405, ""},
		{"GET", "https://www.foobar.com/style.css", "", 200, ""},
	}
	for _, h2 := range []bool{false, true} {
		client := s.visitor(h2)
		for _, tt := range tests {
			r := request(t, tt.method, tt.url)
			r.Host = tt.host
			resp, body := ask(t, client, r)
			name := fmt.Sprintf("h2 %v: %s %s host %q", h2, tt.method, tt.url, tt.host)
			if resp.StatusCode != tt.status || resp.Header.Get("Location") != tt.location {
				t.Errorf("%s: got %d %q, want %d %q\n%s", name, resp.StatusCode, resp.Header.Get("Location"), tt.status, tt.location, body)
			}
			if len(resp.Header.Get("X-Request-Id")) != 32 {
				t.Errorf("%s: X-Request-Id: got %q", name, resp.Header.Get("X-Request-Id"))
			}
			secure := strings.HasPrefix(tt.url, "https")
			if got := resp.Header.Get("Strict-Transport-Security") != ""; got != (secure && tt.status != 421) {
				t.Errorf("%s: HSTS: got %v, want it of our names only", name, got)
			}
			if secure && h2 != (resp.ProtoMajor == 2) {
				t.Errorf("%s: got %s", name, resp.Proto)
			}
		}
	}
}

// TestHeaders: the app sees what the balancer says, not what the visitor does.
func TestHeaders(t *testing.T) {
	s := newStand(t)
	for _, srv := range s.servers {
		srv.setApp(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Request-Id", "the app's")
			w.Header().Set("Connection", "X-Secret")
			w.Header().Set("X-Secret", "hop")
			_ = json.NewEncoder(w).Encode(r.Header)
		})
	}
	r := request(t, "GET", "https://www.foobar.com/")
	for _, name := range []string{
		"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "Forwarded", "X-Real-IP",
		"X-Request-ID", "X_Forwarded_For", "X-Trivet-Check", "True-Client-IP", "Proxy", "X-Hop",
	} {
		r.Header.Set(name, "liar")
	}
	r.Header.Set("Connection", "X-Hop, X-Forwarded-For, X-Request-Id")
	r.Header.Set("Cookie", "kept=1")
	resp, body := ask(t, s.visitor(false), r)
	id := resp.Header.Get("X-Request-Id")
	if id == "liar" || id == "the app's" || resp.Header.Get("X-Secret") != "" {
		t.Errorf("answer's headers: got %v", resp.Header)
	}
	if strings.Contains(body, "liar") {
		t.Errorf("the app was lied to: %s", body)
	}
	var got map[string][]string
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "Traceparent") // see TestOneTrace
	want := map[string][]string{
		"Accept-Encoding": {"gzip"}, "Cookie": {"kept=1"}, "User-Agent": {"Go-http-client/1.1"},
		"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {domain},
		"Forwarded":    {`for=127.0.0.1;host="www.foobar.com";proto=https`},
		"X-Request-Id": {id},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request's headers: -want +got\n%s", diff)
	}
}

// TestSmuggling sends what two readers might read in two ways. Either it is
// refused, or the app sees exactly one request.
func TestSmuggling(t *testing.T) {
	s := newStand(t)
	const host = "Host: www.foobar.com\r\n"
	inner := "GET /smuggled HTTP/1.1\r\n" + host + "\r\n"
	tests := map[string]struct{ text, want string }{
		"two lengths":       {"POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400"},
		"signed length":     {"POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc", "400"},
		"length and chunks": {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n" + inner, "400"},
		"unknown coding":    {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "400"},
		"space before :":    {"GET / HTTP/1.1\r\n" + host + "X-A : b\r\n\r\n", "400"},
		"no host":           {"GET / HTTP/1.1\r\n\r\n", "400"},
		"two hosts":         {"GET / HTTP/1.1\r\n" + host + host + "\r\n", "400"},
		"h2c":               {"GET / HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n", "200"},
		"large header":      {"GET / HTTP/1.1\r\n" + host + "X-A: " + strings.Repeat("a", 80<<10) + "\r\n\r\n", "431"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := tls.Dial("tcp", s.https, s.tls())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_, _ = io.WriteString(c, tt.text)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(resp.StatusCode); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	proxytest.Until(t, "access log", func() bool { return strings.Contains(s.access.String(), `"status":200`) })
	if strings.Contains(s.access.String(), "smuggled") {
		t.Error("a smuggled request was read")
	}
}

func TestTLS(t *testing.T) {
	s := newStand(t)
	dial := func(c *tls.Config) (tls.ConnectionState, error) {
		conn, err := tls.Dial("tcp", s.https, c)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState(), nil
	}
	for _, v := range []uint16{tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		c := s.tls()
		c.MinVersion, c.MaxVersion = v, v
		if _, err := dial(c); (err == nil) != (v >= tls.VersionTLS12) {
			t.Errorf("%s: got %v", tls.VersionName(v), err)
		}
	}
	weak := s.tls()
	weak.MaxVersion, weak.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	if _, err := dial(weak); err == nil {
		t.Error("CBC: got a connection")
	}
	next := s.ca.Certificate(t, domain)
	s.state.Certificates = []part.KeyPair{next}
	s.apply()
	state, err := dial(s.tls())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(next.Certificate, next.Key)
	if err != nil {
		t.Fatal(err)
	}
	if !state.PeerCertificates[0].Equal(pair.Leaf) {
		t.Error("after Apply the former certificate is shown")
	}
}

func TestNoState(t *testing.T) {
	s := &stand{t: t, ca: mtlstest.New(t, "foobar"), access: &proxytest.Lines{}}
	s.state = part.State{
		Site: newSite(), Bundle: s.ca.Bundle, Identity: s.ca.Identity(t, "s1", part.Balancer),
		Certificates: []part.KeyPair{s.ca.Certificate(t, domain)},
		Members:      []part.Member{{Name: "s1", Address: "127.0.0.1:1", Alive: true}},
	}
	s.start()
	proxytest.Until(t, "the dead backend is noticed", func() bool {
		err := s.b.Check(t.Context())
		return err != nil && strings.Contains(err.Error(), "web on s1 is down")
	})
	resp, body := ask(t, s.visitor(true), request(t, "GET", "https://www.foobar.com/"))
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "<h1>Back in a moment</h1>") {
		t.Errorf("got %d, Retry-After %q\n%s", resp.StatusCode, resp.Header.Get("Retry-After"), body)
	}
	bad := s.state
	bad.Certificates = []part.KeyPair{{Certificate: []byte("x"), Key: []byte("y")}}
	if s.b.Apply(t.Context(), bad) == nil {
		t.Error("Apply with a broken certificate: got nil")
	}
}

func TestAccessLog(t *testing.T) {
	s := newStand(t)
	resp, _ := ask(t, s.visitor(true), request(t, "GET", "https://www.foobar.com/a?b=c"))
	proxytest.Until(t, "a line", func() bool { return strings.Contains(s.access.String(), "\n") })
	var got struct {
		ID, Client, Method, Host, Path, Query, Protocol, Server string
		Status, Bytes, Retries                                  int
		Duration                                                float64
	}
	if err := json.Unmarshal([]byte(s.access.String()), &got); err != nil {
		t.Fatal(err)
	}
	if got.Duration <= 0 || got.Duration > 10 {
		t.Errorf("duration: got %v", got.Duration)
	}
	got.Duration = 0
	want := got
	want.ID, want.Client, want.Method, want.Host = resp.Header.Get("X-Request-Id"), "127.0.0.1", "GET", domain
	want.Path, want.Query, want.Protocol, want.Status, want.Bytes = "/a", "b=c", "HTTP/2.0", 200, 2
	want.Server, want.Retries = resp.Header.Get("X-Served-By"), 0
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
