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
	"time"

	"github.com/quic-go/quic-go/http3"

	"trivet/internal/metric"
	"trivet/proxy/proxytest"
	"trivet/site"
)

// TestRefusedAreNamed: a request that cannot be understood has an ID in its
// answer, and a line in the log with that ID and the visitor's address.
func TestRefusedAreNamed(t *testing.T) {
	throughBoth(t, func(c *site.Site) { c.Balancer.Limits.Head = 8192 }, func(_ *testing.T, s *stand, _ []*metric.Registry, passthrough bool) {
		logs := []*proxytest.Lines{s.access}
		if passthrough {
			logs = nil
			for _, srv := range s.servers {
				logs = append(logs, srv.access)
			}
		}
		s.refusedByHTTP1(logs)
		c := s.visitor(true)
		s.refusedInFrames(logs, c.Do, "https://"+domain, "HTTP/2.0")
		if !passthrough {
			tr := &http3.Transport{TLSClientConfig: s.tls()}
			defer func() { _ = tr.Close() }()
			s.refusedInFrames(logs, tr.RoundTrip, "https://"+s.quic, "HTTP/3.0")
		}
		s.refusedForTime(logs)
	})
}

func (s *stand) refusedByHTTP1(logs []*proxytest.Lines) {
	long := strings.Repeat("x", 9000)
	for text, want := range map[string]int{
		"GET / HTTP/1.1\r\n\r\n":                                                                                      400,
		"GET / HTTP/1.1\nHost: " + domain + "\n\n":                                                                    400,
		"GET /" + long[:5000] + " HTTP/1.1\r\nHost: " + domain + "\r\n\r\n":                                           414,
		"GET / HTTP/1.1\r\nHost: " + domain + "\r\nX-Large: " + long + "\r\n\r\n":                                     431,
		"POST / HTTP/1.1\r\nHost: " + domain + "\r\nTransfer-Encoding: gzip, chunked\r\n\r\n":                         501,
		"GET / HTTP/3.0\r\nHost: " + domain + "\r\n\r\n":                                                              505,
		strings.Repeat("LONG", 20) + " / HTTP/1.1\r\nHost: " + domain + "\r\n\r\n":                                    501,
		"POST / HTTP/1.1\r\nHost: " + domain + "\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 400,
	} {
		s.refusedOn(s.dial(), logs, text, want)
	}
}

// refusedForTime begins a head that does not end.
func (s *stand) refusedForTime(logs []*proxytest.Lines) {
	c := s.dial()
	s.change(func(c *site.Site) { c.Balancer.Limits.HeadTime = site.Duration(100 * time.Millisecond) })
	s.refusedOn(c, logs, "GET / HTT", 408)
}

func (s *stand) dial() *tls.Conn {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.https, s.tls()) // the handshake, too
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *stand) refusedOn(c *tls.Conn, logs []*proxytest.Lines, text string, want int) {
	s.t.Helper()
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, text)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatalf("%.40q: %v", text, err)
	}
	s.isNamed(logs, resp, "HTTP/1.1", want)
}

// refusedInFrames does so for HTTP/2 and 3.
func (s *stand) refusedInFrames(logs []*proxytest.Lines, send func(*http.Request) (*http.Response, error), to, version string) {
	for want, change := range map[int]func(*http.Request){
		414: func(r *http.Request) { r.URL.Path = "/" + strings.Repeat("x", 5000) },
		431: func(r *http.Request) {
			for i := range 110 {
				r.Header.Set(fmt.Sprint("X-", i), "")
			}
		},
	} {
		r := request(s.t, "GET", to+"/")
		r.Host = domain
		change(r)
		resp, err := send(r.WithContext(s.t.Context()))
		if err != nil {
			s.t.Fatalf("%s: %v", version, err)
		}
		_ = resp.Body.Close()
		s.isNamed(logs, resp, version, want)
	}
}

// isNamed looks for the line of an answer.
func (s *stand) isNamed(logs []*proxytest.Lines, resp *http.Response, version string, status int) {
	s.t.Helper()
	id := resp.Header.Get("X-Request-Id")
	if resp.StatusCode != status || id == "" {
		s.t.Errorf("%s: got %d, ID %q, want %d and one", version, resp.StatusCode, id, status)
		return
	}
	type line struct {
		ID, Client, Protocol string
		Status               int
	}
	want := line{id, "127.0.0.1", version, status}
	var got line
	proxytest.Until(s.t, fmt.Sprintf("a line %+v", want), func() bool {
		for _, log := range logs {
			for text := range strings.Lines(log.String()) {
				if json.Unmarshal([]byte(text), &got) == nil && got.ID == id {
					return true
				}
			}
		}
		return false
	})
	if got != want {
		s.t.Errorf("line: got %+v, want %+v", got, want)
	}
}
