package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// hop is a line of an access log, as far as the ring reads it.
type hop struct {
	ID       string  `json:"id"`
	Trace    string  `json:"trace"`
	Span     string  `json:"span"`
	Client   string  `json:"client"`
	Server   string  `json:"server"`
	Status   int     `json:"status"`
	Head     float64 `json:"head"`
	Duration float64 `json:"duration"`
}

// hopOf waits for the line about a request in a log of a server.
func hopOf(t *testing.T, server, log, id string) (h hop) {
	t.Helper()
	eventually(t, 10*time.Second, id+" in "+log+" of "+server, func() bool {
		f, err := os.Open(filepath.Join(ring.Dir(server, "log"), log))
		if err != nil {
			return false
		}
		defer func() { _ = f.Close() }()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if strings.Contains(lines.Text(), id) {
				return json.Unmarshal(lines.Bytes(), &h) == nil
			}
		}
		return false
	})
	return h
}

// A request has one ID and one trace for the visitor, the balancer, the web
// server and the app, and its time at each hop lies within the one before.
func (c chaos) oneRequest(t *testing.T) {
	c.apply(t, "")
	holder, _ := holderAndOther(t)
	client := visitor(t, ring.Floating())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+Domain+"/seen", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var app http.Header
	if err := json.NewDecoder(res.Body).Decode(&app); err != nil {
		t.Fatal(err)
	}
	id := res.Header.Get("X-Request-Id")
	front := hopOf(t, holder, "access-balancer.log", id)
	back := hopOf(t, res.Header.Get("X-Served-By"), "access-web.log", id)
	if id == "" || app.Get("X-Request-Id") != id || front.ID != id || back.ID != id {
		t.Errorf("IDs: the visitor has %q, balancer %q, web %q, app %q", id, front.ID, back.ID, app.Get("X-Request-Id"))
	}
	parent := strings.Split(app.Get("Traceparent"), "-")
	if len(parent) != 4 || parent[1] != front.Trace || back.Trace != front.Trace {
		t.Errorf("traces: balancer %q, web %q, app %q", front.Trace, back.Trace, app.Get("Traceparent"))
	} else if parent[2] != back.Span || back.Span == front.Span {
		t.Errorf("spans: balancer %q, web %q, app's parent %q, want web's own for the app", front.Span, back.Span, parent[2])
	}
	if front.Server != res.Header.Get("X-Served-By") || front.Client != ring.Prefix+".1" || back.Client != front.Client {
		t.Errorf("balancer says %+v, web says %+v", front, back)
	}
	if !(front.Duration >= front.Head && front.Head >= back.Duration && back.Duration >= back.Head && back.Head > 0) {
		t.Errorf("times do not lie within each other: balancer %+v, web %+v", front, back)
	}
	t.Logf("%s: balancer %.2f ms, of which it waited %.2f ms for web; web %.2f ms, of which it waited %.2f ms for the app",
		id, front.Duration*1000, front.Head*1000, back.Duration*1000, back.Head*1000)
}

// HTTP/3 is announced, and answers the same page through the floating address.
func (c chaos) http3(t *testing.T) {
	client := visitor(t, ring.Floating())
	res, err := client.Get("https://" + Domain + "/style.css")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	want, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Header.Get("Alt-Svc"); !strings.HasPrefix(got, `h3=":443"`) {
		t.Errorf("Alt-Svc is %q, want HTTP/3 on port 443", got)
	}
	secure := client.Transport.(*http.Transport).TLSClientConfig.Clone()
	s := &http.Client{Timeout: 10 * time.Second, Transport: overUDP(t, secure, net.JoinHostPort(ring.Floating(), "443"))}
	for range 3 {
		res, err := s.Get("https://" + Domain + "/style.css")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.ProtoMajor != 3 || string(got) != string(want) {
			t.Errorf("%s %s, %q, %v, want %q by HTTP/3", res.Proto, res.Status, got, err, want)
		}
	}
}

// HTTP/3 goes on while another server dies, and while a change is put in force.
func (c chaos) http3UnderLoad(t *testing.T) {
	c.apply(t, "")
	_, other := holderAndOther(t)
	secure := visitor(t, ring.Floating()).Transport.(*http.Transport).TLSClientConfig.Clone()
	u := &http.Client{Timeout: 15 * time.Second, Transport: overUDP(t, secure, net.JoinHostPort(ring.Floating(), "443"))}
	s := &steady{once: u, kept: []*http.Client{u}, rate: 100, room: make(chan struct{}, 1000)}
	s.run(t, func() {
		c.apply(t, "  policy: least\n")
		s.more(t, s.rate)
		must(t, "lab", "kill", other)
		s.more(t, 2*s.rate)
		must(t, "lab", "start", other)
	})
	s.none(t)
}

// overUDP speaks HTTP/3 with address, whatever name is asked for.
func overUDP(t *testing.T, secure *tls.Config, address string) *http3.Transport {
	t.Helper()
	tr := &http3.Transport{TLSClientConfig: secure, Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
		return quic.DialAddr(ctx, address, tc, qc)
	}}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}
