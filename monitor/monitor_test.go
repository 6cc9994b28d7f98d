package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"trivet/internal/metric"
	"trivet/internal/mtls"
	"trivet/internal/mtls/mtlstest"
	"trivet/internal/overview"
	"trivet/internal/part"
	"trivet/site"
)

// server is one of three on loopback addresses, with a balancer that answers requests.
type server struct {
	monitor  *Monitor
	state    part.State
	releases string
	cancel   context.CancelFunc
	requests *metric.CounterVec
	seconds  *metric.HistogramVec
}

// trio is three servers that know each other.
type trio struct {
	root    *mtlstest.Authority
	servers []*server
	port    int
}

func newTrio(t *testing.T, alerts ...site.Alert) *trio {
	t.Helper()
	tr := &trio{root: mtlstest.New(t, "foobar")}
	declared := &site.Site{Name: "foobar", Domain: "www.foobar.com"}
	declared.Monitor = site.Monitor{Retention: site.Duration(2 * time.Hour), Alerts: alerts}
	var members []part.Member
	for i := range 3 {
		members = append(members, part.Member{Name: fmt.Sprint("s", i+1), Address: fmt.Sprint("127.0.0.", i+1), Alive: true})
	}
	for i := range 3 {
		id := tr.root.Identity(t, members[i].Name, part.Monitor)
		tr.servers = append(tr.servers, tr.start(t, part.State{
			Site: declared, Server: members[i].Name, Members: members, Quorum: true, AddressHolder: "s1",
			Identity: id, Bundle: tr.root.Bundle, Certificates: []part.KeyPair{id},
			Secrets: map[string]string{part.SecretConsoleKey: "secret"},
		}))
	}
	return tr
}

// start runs a monitor and a balancer for the server of s.
func (tr *trio) start(t *testing.T, s part.State) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "monitor") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	peer := listen(t, net.JoinHostPort(s.Self().Address, fmt.Sprint(tr.port)))
	tr.port = peer.Addr().(*net.TCPAddr).Port
	registry := metric.NewRegistry()
	srv := &server{
		state: s, releases: dir,
		requests: registry.Counter("trivet_requests_total", "Requests.", "method", "code"),
		seconds:  registry.Histogram("trivet_request_seconds", "Time to answer."),
	}
	srv.monitor = New(Config{
		Log: log, Metrics: metric.NewRegistry(), Peer: peer, Console: listen(t, s.Self().Address+":0"),
		MetricsDir: dir, SeriesDir: filepath.Join(dir, "series"), ReleaseDir: dir, PeerPort: tr.port,
	})
	if err := os.Mkdir(filepath.Join(dir, "series"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := srv.monitor.Apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	srv.run(t, registry, dir)
	return srv
}

func (s *server) run(t *testing.T, registry *metric.Registry, dir string) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.monitor.Run(ctx); err != nil {
			t.Errorf("run monitor: %v", err)
		}
	})
	wg.Go(func() { _ = registry.Serve(ctx, dir, part.Balancer, "no such group") })
	s.cancel = func() { cancel(); wg.Wait() }
	t.Cleanup(func() { s.cancel(); _ = os.RemoveAll(dir) })
}

// load answers that many requests a second, of 4 ms each, until the returned func is called.
func (s *server) load(perSecond float64) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				s.requests.WithLabelValues("GET", "200").Add(perSecond / 20)
				s.seconds.WithLabelValues().Observe(0.004)
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// eventually waits until f returns "".
func eventually(t *testing.T, f func() string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		problem := f()
		if problem == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(problem)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestEachSeesAllThree(t *testing.T) {
	tr := newTrio(t)
	for i, s := range tr.servers {
		t.Cleanup(s.load(float64(100 * (i + 1))))
	}
	for _, s := range tr.servers {
		for i, of := range tr.servers {
			want := float64(100 * (i + 1))
			eventually(t, func() string {
				points := s.monitor.Points(time.Now().Unix() - 5)[of.state.Server]
				for _, p := range points {
					if math.Abs(float64(p.QPS)-want) < want/5 && math.Abs(float64(p.P50)-4) < 0.5 && p.Memory > 0 {
						return ""
					}
				}
				return fmt.Sprintf("%s sees of %s %+v, want about %v requests/s", s.state.Server, of.state.Server, points, want)
			})
		}
		if err := s.monitor.Check(t.Context()); err != nil {
			t.Errorf("check %s: %v", s.state.Server, err)
		}
	}
	if got := samples(t, tr.servers[0].monitor.store, "trivet_requests_total"); len(got) < 2 || got[len(got)-1] <= got[0] {
		t.Errorf("stored requests of s1: got %v, want them to grow", got)
	}
	if got := samples(t, tr.servers[0].monitor.store, "trivet_host_memory_bytes"); len(got) == 0 {
		t.Error("nothing of the host was stored")
	}
	tr.servers[2].cancel()
	eventually(t, func() string {
		now := tr.servers[0].monitor.Now()
		if now.Servers[2].Reachable || !now.Servers[1].Reachable {
			return fmt.Sprintf("after s3 ended: %+v", now.Servers)
		}
		return ""
	})
}

// TestHungProcess has a process that accepts and never answers: the others are
// measured every second all the same.
func TestHungProcess(t *testing.T) {
	tr := newTrio(t)
	s := tr.servers[0]
	l, err := net.Listen("unix", filepath.Join(s.releases, "web.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	t.Cleanup(s.load(100))
	eventually(t, func() string {
		points := s.monitor.Points(0)["s1"]
		good := 0
		for _, p := range points {
			if p.QPS > 50 && p.QPS < 150 {
				good++
			}
		}
		if good < 8 {
			return fmt.Sprintf("only %d good seconds of %+v", good, points)
		}
		if first, last := points[0].Time, points[len(points)-1].Time; last-first != int64(len(points)-1) {
			t.Errorf("%d points from %d to %d: there are gaps", len(points), first, last)
		}
		return ""
	})
}

func TestAlertIsSentOnce(t *testing.T) {
	notices := make(chan notice, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var n notice
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
			t.Error(err)
		}
		notices <- n
	}))
	t.Cleanup(hook.Close)
	tr := newTrio(t, site.Alert{Name: "busy", Above: 150, For: site.Duration(2 * time.Second), Webhook: hook.URL})
	stop := []func(){tr.servers[0].load(100), tr.servers[1].load(100)}
	fires := receive(t, notices)
	if fires.Status != statusFiring || fires.Server != "s1" || fires.Site != "foobar" || fires.Threshold != 150 || fires.Value < 150 || len(fires.Servers) != 3 {
		t.Errorf("notice: got %+v", fires)
	}
	for _, s := range tr.servers {
		eventually(t, func() string {
			if got := s.monitor.Now().Alerts[0].State; got != overview.AlertFiring {
				return s.state.Server + " says " + got
			}
			return ""
		})
	}
	for _, f := range stop {
		f()
	}
	if ends := receive(t, notices); ends.Status != statusResolved || ends.Value > 150 {
		t.Errorf("notice: got %+v", ends)
	}
	for _, s := range tr.servers {
		s.cancel() // delivers what is left
	}
	if len(notices) > 0 {
		t.Errorf("one more notice: %+v", <-notices)
	}
}

func receive(t *testing.T, c <-chan notice) notice {
	t.Helper()
	select {
	case n := <-c:
		return n
	case <-time.After(20 * time.Second):
		t.Fatal("no notice came")
		return notice{}
	}
}

func TestWhoMayAsk(t *testing.T) {
	tr := newTrio(t)
	hash := strings.Repeat("ab", 32)
	s := tr.servers[0]
	if err := os.WriteFile(filepath.Join(s.releases, hash+".tar"), []byte("archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		from, path string
		want       int // 0: refused in the handshake
		body       string
	}{
		{part.Monitor, "/v1/points?after=0", 200, ""},
		{part.Monitor, "/v1/points?after=x", 400, ""},
		{part.Monitor, "/v1/parts", 200, `"server":"s1"`},
		{part.Monitor, "/release/" + hash, 403, ""},
		{part.Node, "/release/" + hash, 200, "archive"},
		{part.Node, "/release/" + strings.Repeat("cd", 32), 404, ""},
		{part.Node, "/release/..%2F..%2Fetc", 400, ""},
		{part.Web, "/v1/points", 0, ""},
	} {
		code, body := tr.ask(t, test.from, test.path)
		if code != test.want || !strings.Contains(body, test.body) {
			t.Errorf("%s asks for %s: got %d %q, want %d %q", test.from, test.path, code, body, test.want, test.body)
		}
	}
}

// ask asks s1 as a part of s2.
func (tr *trio) ask(t *testing.T, from, path string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: mtls.Client(tr.root.Source(t, "s2", from), "s1", part.Monitor), DisableKeepAlives: true}}
	res, err := c.Get(fmt.Sprintf("https://127.0.0.1:%d%s", tr.port, path))
	if err != nil {
		return 0, ""
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestBeforeTheFirstState(t *testing.T) {
	m := New(Config{Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry()})
	if err := m.Check(t.Context()); err == nil || err.Error() != "no state yet" {
		t.Errorf("check: got %v, want no state yet", err)
	}
	if err := m.Apply(t.Context(), part.State{Site: &site.Site{}}); err == nil {
		t.Error("a state without an identity: got no error")
	}
}
