package monitor

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/metric"
)

// Processes are known by the pids that node tells, so that a monitor that was
// started after them, or after their node, measures them too.
func TestCollect(t *testing.T) {
	dir, err := os.MkdirTemp("", "collect") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	r := metric.NewRegistry()
	pid := r.Gauge("trivet_process_pid", "Process ids.", "process")
	pid.WithLabelValues("mariadbd").Set(float64(os.Getpid()))
	pid.WithLabelValues("app-1-2").Set(float64(os.Getppid()))
	pid.WithLabelValues("ended").Set(1 << 30)
	queries := r.Counter("trivet_database_queries_total", "Queries.").WithLabelValues()
	served := r.Counter("trivet_web_requests_total", "Requests.", "code").WithLabelValues("200")
	queries.Add(1000) // before the first look: not of this second
	serveMetrics(t, r, dir)

	c, err := newCollector("s1", dir, NewStore(slog.New(slog.DiscardHandler), dir), func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Second)
	if f := c.collect(t.Context(), now); f.Point.Queries != 0 {
		t.Errorf("queries of the first second = %v, want 0", f.Point.Queries)
	}
	queries.Add(50)
	served.Add(30)
	f := c.collect(t.Context(), now.Add(time.Second))
	if f.Point.Queries != 50 || f.Point.Served != 30 {
		t.Errorf("queries, served = %v, %v, want 50, 30", f.Point.Queries, f.Point.Served)
	}
	var got []string
	for _, p := range f.Processes {
		if p.Memory <= 0 {
			t.Errorf("%s has %d bytes of memory", p.Name, p.Memory)
		}
		got = append(got, p.Name)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"app", "mariadbd"}, got); diff != "" {
		t.Errorf("processes (-want +got):\n%s", diff)
	}
}

// serveMetrics serves r as node's until the test ends.
func serveMetrics(t *testing.T, r *metric.Registry, dir string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Serve(ctx, dir, "node", "no such group") }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	eventually(t, func() string {
		if _, err := os.Stat(filepath.Join(dir, "node.sock")); err != nil {
			return err.Error()
		}
		return ""
	})
}

// A worker cannot pass for another by a socket of that one's name in its own folder.
func TestSockets(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{
		"node.sock", "web/web.sock", "web/balancer.sock", "web/deep/deep.sock", "web/other", "web/web-next.sock", "web/web-retiring-x.sock",
		"web/web-retiring-1.sock", "web/web-retiring-2.sock", "web/web-retiring-3.sock", "web/web-retiring-4.sock", "web/web-retiring-5.sock", "web/balancer-retiring-1.sock",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for _, path := range []string{"node.sock", "web/web-retiring-1.sock", "web/web-retiring-2.sock", "web/web-retiring-3.sock", "web/web-retiring-4.sock", "web/web.sock"} {
		want = append(want, filepath.Join(dir, path))
	}
	if diff := cmp.Diff(want, sockets(dir)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
