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

	"github.com/google/go-cmp/cmp"

	"trivet/internal/part"
	"trivet/proxy/proxytest"
	"trivet/site"
)

// spread asks n times and counts which server answered.
func (s *stand) spread(c *http.Client, n int, change func(i int, r *http.Request)) map[string]int {
	got := map[string]int{}
	for i := range n {
		r := request(s.t, "GET", "https://"+domain+"/")
		if change != nil {
			change(i, r)
		}
		resp, _ := ask(s.t, c, r)
		got[resp.Header.Get("X-Served-By")]++
	}
	return got
}

func TestWeights(t *testing.T) {
	s := newStand(t, func(s *site.Site) {
		s.Balancer.Policy = site.PolicyRoundRobin
		s.Servers[0].Weight, s.Servers[1].Weight, s.Servers[2].Weight = 100, 200, 300
	})
	want := map[string]int{"s1": 10, "s2": 20, "s3": 30}
	if diff := cmp.Diff(want, s.spread(s.visitor(true), 60, nil)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestHash(t *testing.T) {
	s := newStand(t, func(s *site.Site) { s.Balancer.Policy, s.Balancer.Hash = site.PolicyHash, "header:X-Key" })
	c, servers := s.visitor(true), map[string]bool{}
	for k := range 20 {
		key := fmt.Sprintf("key %d", k)
		got := s.spread(c, 3, func(_ int, r *http.Request) { r.Header.Set("X-Key", key) })
		if len(got) != 1 {
			t.Errorf("%s: got %v, want one server", key, got)
		}
		for name := range got {
			servers[name] = true
		}
	}
	if len(servers) != 3 {
		t.Errorf("20 keys are on %v, want all three", servers)
	}
}

// TestSticky: a visitor stays where the cookie says, a forged one counts
// nothing, and one whose server is gone is moved.
func TestSticky(t *testing.T) {
	s := newStand(t, func(s *site.Site) { s.Balancer.Sticky = "stay" })
	c := s.visitor(true)
	resp, _ := ask(t, c, request(t, "GET", "https://"+domain+"/"))
	first, cookies := resp.Header.Get("X-Served-By"), resp.Cookies()
	if len(cookies) != 1 || cookies[0].Name != "stay" || !cookies[0].Secure || !cookies[0].HttpOnly {
		t.Fatalf("cookies: got %v", cookies)
	}
	with := func(value string) func(int, *http.Request) {
		return func(_ int, r *http.Request) { r.Header.Set("Cookie", "other=1; stay="+value) }
	}
	if diff := cmp.Diff(map[string]int{first: 30}, s.spread(c, 30, with(cookies[0].Value))); diff != "" {
		t.Errorf("with the cookie: -want +got\n%s", diff)
	}
	_, mac, _ := strings.Cut(cookies[0].Value, ".")
	for _, name := range []string{"s1", "s2", "s3"} {
		if name == first {
			continue
		}
		if got := s.spread(c, 30, with(name+"."+mac)); len(got) == 1 {
			t.Errorf("a forged cookie for %s: got %v, want them spread", name, got)
		}
	}
	for _, srv := range s.servers {
		if srv.name == first {
			srv.wire.Set(proxytest.Cut)
		}
	}
	if got := s.spread(c, 10, with(cookies[0].Value)); got[first] != 0 {
		t.Errorf("its server is gone: got %v", got)
	}
}

func TestMaintenance(t *testing.T) {
	s := newStand(t)
	s.change(func(s *site.Site) { s.Balancer.Maintenance = site.Maintenance{On: true, Text: "Back at <noon>."} })
	resp, body := ask(t, s.visitor(true), request(t, "GET", "https://"+domain+"/"))
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "Back at &lt;noon&gt;.") {
		t.Errorf("got %d, Retry-After %q\n%s", resp.StatusCode, resp.Header.Get("Retry-After"), body)
	}
	s.change(func(s *site.Site) { s.Balancer.Maintenance = site.Maintenance{} })
	if resp, _ := ask(t, s.visitor(true), request(t, "GET", "https://"+domain+"/")); resp.StatusCode != 200 {
		t.Errorf("afterwards: got %d", resp.StatusCode)
	}
}

// TestDrained: a drained server gets nothing new and is no problem; it is back
// when it is undrained.
func TestDrained(t *testing.T) {
	s := newStand(t)
	drain := func(out bool) {
		members := append([]part.Member(nil), s.state.Members...)
		members[1].Drained = out
		s.state.Members = members
		s.apply()
	}
	drain(true)
	if got := s.spread(s.visitor(true), 60, nil); got["s2"] != 0 || got["s1"] == 0 || got["s3"] == 0 {
		t.Errorf("drained: got %v", got)
	}
	if err := s.b.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	if got := s.status(); got.Backends[1].State != "drained" {
		t.Errorf("state: got %q, want drained", got.Backends[1].State)
	}
	drain(false)
	if got := s.spread(s.visitor(true), 90, nil); got["s2"] == 0 {
		t.Errorf("undrained: got %v", got)
	}
}

// TestDrainedTunnel: a WebSocket to a drained server goes on for as long as the
// site says, and others are not touched.
func TestDrainedTunnel(t *testing.T) {
	s := newStand(t, func(s *site.Site) {
		s.Balancer.Drain, s.Balancer.Policy = site.Duration(300*time.Millisecond), site.PolicyRoundRobin
	})
	open := []*tunnelled{tunnel(t, s), tunnel(t, s), tunnel(t, s)}
	members := append([]part.Member(nil), s.state.Members...)
	members[1].Drained = true
	s.state.Members = members
	s.apply()
	for _, ws := range open {
		ws.echo(t, "just drained")
	}
	proxytest.Until(t, "one has ended", func() bool { return s.status().Tunnels == 2 })
	ended := 0
	for _, ws := range open {
		if !ws.lives() {
			ended++
		}
	}
	if ended != 1 {
		t.Errorf("ended: got %d, want 1", ended)
	}
}

func (s *stand) status() part.BalancerStatus {
	s.t.Helper()
	v, err := s.b.Inspect(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return v.(part.BalancerStatus)
}

func TestInspect(t *testing.T) {
	s := newStand(t)
	s.spread(s.visitor(true), 30, nil)
	s.servers[2].wire.Set(proxytest.Cut)
	proxytest.Until(t, "s3 is out", func() bool { return s.status().Backends[2].State == "down" })
	got := s.status()
	if got.Server != "s1" || got.Policy != site.PolicyEWMA || got.Connections == 0 || got.Backends[2].Why == "" {
		t.Errorf("got %+v", got)
	}
	var requests uint64
	for _, k := range got.Backends {
		requests += k.Requests
		if k.Weight != site.DefaultWeight || k.State == "up" && k.Latency <= 0 {
			t.Errorf("got %+v", k)
		}
	}
	if requests < 30 {
		t.Errorf("requests: got %d, want at least 30", requests)
	}
}

// TestOneTrace: balancer, web server and app see one ID and one trace, and the
// two logs have the timings of their hops.
func TestOneTrace(t *testing.T) {
	s := newStand(t)
	parents := make(chan string, 1)
	for _, srv := range s.servers {
		srv.setApp(func(w http.ResponseWriter, r *http.Request) {
			select {
			case parents <- r.Header.Get("Traceparent"):
			default:
			}
			_, _ = io.WriteString(w, r.Header.Get("X-Request-Id"))
		})
	}
	resp, body := ask(t, s.visitor(true), request(t, "GET", "https://"+domain+"/a"))
	type line struct {
		ID, Trace, Span, Server string
		Duration, Head, Queue   float64
	}
	read := func(l *proxytest.Lines) (got line) {
		proxytest.Until(t, "a line", func() bool { return strings.HasSuffix(l.String(), "\n") })
		if err := json.Unmarshal([]byte(l.String()), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := read(s.access)
	var second line
	for _, srv := range s.servers {
		if srv.name == first.Server {
			second = read(srv.access)
		}
	}
	if body != first.ID || second.ID != first.ID || resp.Header.Get("X-Request-Id") != first.ID || first.ID == "" {
		t.Errorf("IDs: app %q, balancer %q, web %q, visitor %q", body, first.ID, second.ID, resp.Header.Get("X-Request-Id"))
	}
	if first.Trace != second.Trace || first.Span == second.Span {
		t.Errorf("traces: got %+v and %+v", first, second)
	}
	if want, got := "00-"+second.Trace+"-"+second.Span+"-01", <-parents; got != want {
		t.Errorf("the app's traceparent: got %q, want %q", got, want)
	}
	if first.Duration < first.Head || first.Head < second.Head || second.Duration < second.Head || second.Head <= 0 {
		t.Errorf("timings do not nest: %+v and %+v", first, second)
	}
}

// TestPassthrough: the balancer opens nothing; the web server shows the site's
// certificate, knows the visitor, and speaks HTTP/2; the balancer refuses
// other names.
func TestPassthrough(t *testing.T) {
	s := newStand(t, func(s *site.Site) { s.Balancer.TLS, s.Balancer.HTTP3 = site.TLSPassthrough, false })
	for _, srv := range s.servers {
		srv.setApp(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintf(w, "%s %s", r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Proto"))
		})
	}
	for _, h2 := range []bool{false, true} {
		resp, body := ask(t, s.visitor(h2), request(t, "GET", "https://"+domain+"/"))
		if resp.StatusCode != 200 || body != "127.0.0.1 https" || h2 != (resp.ProtoMajor == 2) || resp.Header.Get("Strict-Transport-Security") == "" {
			t.Errorf("h2 %v: got %s %d %q", h2, resp.Proto, resp.StatusCode, body)
		}
	}
	s.passedClaims()
	s.passedCounts()
	s.passedLimits()
	if resp, _ := ask(t, s.visitor(true), request(t, "GET", "https://foobar.com/x")); resp.Header.Get("Location") != "https://"+domain+"/x" {
		t.Errorf("alias: got %d %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	other := s.tls()
	other.ServerName = "other.example"
	if c, err := tls.Dial("tcp", s.https, other); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("another name: got %v, %v", c, err)
	}
	if s.access.String() != "" {
		t.Errorf("the balancer read requests: %s", s.access.String())
	}
	s.servers[0].wire.Set(proxytest.Cut)
	for range 10 {
		if resp, _ := ask(t, s.visitor(false), request(t, "GET", "https://"+domain+"/")); resp.StatusCode != 200 {
			t.Errorf("with a server gone: got %d", resp.StatusCode)
		}
	}
}

// TestTunnelOutlivesApply: an open WebSocket survives a change of everything
// that an apply can change.
func TestTunnelOutlivesApply(t *testing.T) {
	s := newStand(t)
	for _, srv := range s.servers {
		srv.setApp(echoTunnel)
	}
	c, err := tls.Dial("tcp", s.https, s.tls())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "GET /socket HTTP/1.1\r\nHost: "+domain+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("got %v, %v", resp, err)
	}
	say := func(text string) {
		t.Helper()
		_, _ = io.WriteString(c, text+"\n")
		if got, err := r.ReadString('\n'); got != text+"\n" {
			t.Fatalf("got %q, %v; want %q", got, err, text)
		}
	}
	say("before")
	proxytest.Until(t, "a tunnel is counted", func() bool { return s.status().Tunnels == 1 })
	for i := range 20 {
		s.change(func(c *site.Site) {
			c.Balancer.Policy = []string{site.PolicyLeast, site.PolicyRoundRobin, site.PolicyEWMA}[i%3]
			c.Balancer.Limits.Head = 32<<10 + i
		})
		say(fmt.Sprint("after ", i))
	}
	s.change(func(c *site.Site) { c.Balancer.TLS, c.Balancer.HTTP3 = site.TLSPassthrough, false })
	say("after passthrough")
}

// echoTunnel switches protocols and says everything twice.
func echoTunnel(w http.ResponseWriter, _ *http.Request) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_, _ = io.Copy(c, rw)
}
