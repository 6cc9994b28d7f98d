package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// download is the large file as a client takes it whose line is slow.
type download struct {
	begun time.Time
	body  io.ReadCloser
	fast  chan struct{} // closed when the rest is to come at once
	done  chan error
	got   bytes.Buffer
}

// openDownload takes 128 kB a second.
func openDownload(t *testing.T, address string) *download {
	t.Helper()
	client := visitor(t, address)
	client.Timeout = 0
	res, err := client.Get("https://" + Domain + "/large")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatalf("download: %s", res.Status)
	}
	d := &download{begun: time.Now(), body: res.Body, fast: make(chan struct{}), done: make(chan error, 1)}
	go func() { d.done <- d.take() }()
	return d
}

func (d *download) take() error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-d.fast:
			_, err := io.Copy(&d.got, d.body)
			return err
		case <-tick.C:
			if _, err := io.CopyN(&d.got, d.body, 32<<10); err != nil {
				return err
			}
		}
	}
}

// finish reads the rest, and compares.
func (d *download) finish(t *testing.T, want []byte) {
	t.Helper()
	close(d.fast)
	if err := <-d.done; err != nil || !bytes.Equal(d.got.Bytes(), want) {
		t.Errorf("download: %v, %d bytes after %s, want the whole file, %d", err, d.got.Len(), time.Since(d.begun), len(want))
	}
	t.Logf("a download was open for %s", time.Since(d.begun).Round(100*time.Millisecond))
}

// narrow is a line that carries 130 kB a second, and then ten times as much at most.
type narrow struct {
	net.Conn
	wide <-chan struct{}
	tick <-chan time.Time
}

func (n narrow) Read(p []byte) (int, error) {
	<-n.tick
	most := 1300
	select {
	case <-n.wide:
		most = 16 << 10
	default:
	}
	return n.Conn.Read(p[:min(most, len(p))])
}

// openNarrow takes the medium file over HTTP/2 and a slow line. Its client opens
// its window as it reads, to the end.
func openNarrow(t *testing.T, address string) *download {
	t.Helper()
	d := &download{begun: time.Now(), fast: make(chan struct{}), done: make(chan error, 1)}
	tick := time.NewTicker(10 * time.Millisecond)
	t.Cleanup(tick.Stop)
	client := visitor(t, address)
	client.Timeout = 0
	line := client.Transport.(*http.Transport)
	line.ForceAttemptHTTP2 = true
	dial := line.DialContext
	line.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return narrow{c, d.fast, tick.C}, c.(*net.TCPConn).SetReadBuffer(128 << 10)
	}
	res, err := client.Get("https://" + Domain + "/medium")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.ProtoMajor != 2 {
		t.Fatalf("download: %s %s, want 200 by HTTP/2", res.Proto, res.Status)
	}
	go func() {
		_, err := io.Copy(&d.got, res.Body)
		d.done <- err
	}()
	return d
}

// echoes asserts that an open WebSocket still goes both ways.
func echoes(t *testing.T, all []tunnel, when string) {
	t.Helper()
	for i, u := range all {
		if err := u.echo(fmt.Sprintf("word %d %s", i, when)); err != nil {
			t.Errorf("WebSocket %d %s: %v", i, when, err)
		}
	}
}

// Changed settings are put in force twenty times, and no request and no WebSocket notices.
func (c chaos) reload(t *testing.T) {
	settings := []string{
		"  policy: least\n",
		"  limits:\n    head: 32768\n    rate: 480\n    idle: 60s\n",
		"  policy: round-robin\n  eject:\n    errors: 3\n",
		"  sticky: server\n",
		"  policy: hash\n  hash: path\n  retries: 1\n  timeout: 20s\n",
	}
	open := []tunnel{openTunnel(t, ring.Floating()), openTunnel(t, ring.Floating())}
	before := pids(t, "trivet worker balancer", "trivet worker web")
	s := underLoad(t, ring.Floating(), func(*steady) {
		for i := range 20 {
			text := settings[i%len(settings)]
			if i%2 == 1 { // and the weights
				c.weigh(t, "s1", 50+i)
			}
			c.apply(t, text)
			echoes(t, open, fmt.Sprintf("after change %d", i))
		}
	})
	s.unnoticed(t)
	if diff := cmp.Diff(before, pids(t, "trivet worker balancer", "trivet worker web")); diff != "" {
		t.Errorf("workers that were restarted (-before +after):\n%s", diff)
	}
}

// A drained server gets no more, finishes what it has, and comes back as it was.
func (c chaos) drain(t *testing.T) {
	const left = 3 * time.Second
	c.apply(t, "  policy: round-robin\n  slow_start: 2s\n  drain: "+left.String()+"\n")
	holder, other := holderAndOther(t)
	var open, here []tunnel // to all servers; of these, to the one that is drained
	for i := 0; i < 50 && len(here) < 3; i++ {
		u := openTunnel(t, ring.Floating())
		if u.server == other {
			here = append(here, u)
		} else {
			open = append(open, u)
		}
	}
	if len(here) == 0 {
		t.Fatal("no WebSocket goes to the server that is to be drained")
	}
	t.Cleanup(func() {
		if _, err := ring.Run(context.Background(), "undrain", other); err != nil {
			t.Error(err)
		}
	})
	s := underLoad(t, ring.Floating(), func(s *steady) {
		begun := time.Now()
		drained := make(chan error, 1)
		go func() {
			_, err := ring.Run(t.Context(), "drain", other)
			drained <- err
		}()
		eventually(t, 10*time.Second, "it is drained and has nothing in flight but the WebSockets", func() bool {
			b := backendOf(t, holder, other)
			return b.State == "drained" && b.InFlight == int64(len(here))
		})
		had := backendOf(t, holder, other).Requests
		for _, u := range here {
			if err := u.ended(); err != nil {
				t.Errorf("a WebSocket to a drained server: %v, want its end", err)
			}
		}
		t.Logf("%d WebSockets ended %s after the drain, of at most %s", len(here), time.Since(begun).Round(100*time.Millisecond), left)
		if err := <-drained; err != nil {
			t.Errorf("drain: %v", err)
		}
		s.more(t, steadyRate)
		b := backendOf(t, holder, other)
		if b.Requests != had || b.InFlight != 0 {
			t.Errorf("a drained server got %d requests and has %d in flight, want none", b.Requests-had, b.InFlight)
		}
		must(t, "undrain", other)
		eventually(t, 20*time.Second, "it is asked again", func() bool {
			b := backendOf(t, holder, other)
			return b.State == "up" && b.Requests > had+20
		})
	})
	echoes(t, open, "after another server's drain")
	s.unnoticed(t)
}

// Another build takes over on all servers: no request is sent twice, what is
// open goes on, and app and database are not touched.
func (c chaos) upgrade(t *testing.T) {
	var open []tunnel
	for i := range 6 {
		open = append(open, openTunnel(t, ring.Address(1+i%3)))
	}
	slow, slower := openDownload(t, ring.Address(1)), openNarrow(t, ring.Address(2)) // of two servers, whoever has the floating address by then
	untouched := pids(t, "mariadbd", "app/chaos")
	was := builds(t)
	o := operator(anotherBuild(t))
	s := underLoad(t, ring.Floating(), func(*steady) {
		out, err := o.Run(t.Context(), "upgrade")
		if err != nil {
			t.Fatal(err)
		}
		t.Log(out)
		echoes(t, open, "after another build")
	})
	s.unnoticed(t)
	now := builds(t)
	for what, build := range now {
		if build == "" || build == was[what] || build != now["s1 node"] {
			t.Errorf("%s runs build %q after %q, want that of s1's node, %q", what, build, was[what], now["s1 node"])
		}
	}
	each := 6 // the node and its workers: balancer, web, router, backup, monitor
	if len(now) != each*len(Servers) {
		t.Errorf("%d processes have a build, want %d", len(now), each*len(Servers))
	}
	if diff := cmp.Diff(untouched, pids(t, "mariadbd", "app/chaos")); diff != "" {
		t.Errorf("processes that were restarted (-before +after):\n%s", diff)
	}
	if n := finishing(t); n == 0 {
		t.Error("no former process finishes what is open")
	}
	slow.finish(t, c.large)
	slower.finish(t, c.large[:medium])
	for _, u := range open {
		_ = u.c.Close()
	}
	eventually(t, 60*time.Second, "the end of the former processes", func() bool { return finishing(t) == 0 })
	out, err := o.Run(t.Context(), "upgrade")
	if err != nil || strings.Count(out, "already") != len(Servers) {
		t.Errorf("a second upgrade: %v, want that all run it already:\n%s", err, out)
	}
}

// pids are the processes of those words on all servers.
func pids(t *testing.T, words ...string) map[string][]int {
	t.Helper()
	all := map[string][]int{}
	for _, server := range Servers {
		for _, w := range words {
			all[server+" "+w] = processes(t, server, w)
		}
	}
	return all
}

// With passthrough the web servers open the visitors' encryption: nothing is
// in the clear between, and the app still sees who asks. It is put in force,
// and taken back, without a failed request.
func (c chaos) passthrough(t *testing.T) {
	marker := strings.ReplaceAll("marker/of/"+t.Name(), " ", "")
	s := underLoad(t, ring.Floating(), func(s *steady) {
		for _, how := range []string{"passthrough", "reencrypt"} {
			c.apply(t, "  tls: "+how+"\n")
			s.more(t, steadyRate)
			wire := capture(t, func() {
				if got := seen(t, visitor(t, ring.Floating()), marker)["X-Forwarded-For"]; !slices.Equal(got, []string{ring.Prefix + ".1"}) {
					t.Errorf("with %s, the app sees X-Forwarded-For %q, want the visitor's address", how, got)
				}
			})
			if bytes.Contains(wire, []byte(marker)) {
				t.Errorf("with %s, the marker is in the clear on the bridge", how)
			}
			t.Logf("%s: %d bytes captured", how, len(wire))
		}
	})
	s.none(t)
}

// weigh gives a server another weight, from the next apply on.
func (c chaos) weigh(t *testing.T, server string, weight int) {
	t.Helper()
	path := filepath.Join(c.dir, "site.yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^  - name: ` + server + `\n(    weight: \d+\n)?`)
	text := line.ReplaceAllString(string(data), fmt.Sprintf("  - name: %s\n    weight: %d\n", server, weight))
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// seen are the fields of a request that carries a marker, as the app sees them.
func seen(t *testing.T, c *http.Client, marker string) http.Header {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+Domain+"/seen", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Marker", marker)
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var fields http.Header
	if err := json.NewDecoder(res.Body).Decode(&fields); err != nil || fields.Get("X-Marker") != marker {
		t.Fatalf("the app saw %v (%v), want the marker", fields, err)
	}
	return fields
}
