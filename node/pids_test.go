package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/metric"
	"trivet/internal/process"
)

// What runs is told to the monitor by its pid, by whoever it was started; what has ended is not.
func TestPIDs(t *testing.T) {
	dir, err := os.MkdirTemp("", "pids") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	start := func(name string) *process.Process {
		p, err := process.Start(dir, process.Spec{Name: name, Path: "/bin/sleep", Args: []string{"60"}, Log: filepath.Join(dir, "log")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Stop(context.Background(), syscall.SIGKILL, time.Second) })
		return p
	}
	web, app := start("worker-web"), start("app-1-1")
	r := metric.NewRegistry()
	p := newPIDs(r, dir)
	p.look()
	self := fmt.Sprint(os.Getpid())
	want := map[string]string{"node": self, "web": fmt.Sprint(web.PID()), "app-1-1": fmt.Sprint(app.PID())}
	if diff := cmp.Diff(want, told(t, r, dir)); diff != "" {
		t.Errorf("pids (-want +got):\n%s", diff)
	}
	if err := app.Stop(t.Context(), syscall.SIGKILL, time.Second); err != nil {
		t.Fatal(err)
	}
	p.look()
	delete(want, "app-1-1")
	if diff := cmp.Diff(want, told(t, r, dir)); diff != "" {
		t.Errorf("pids after the app ended (-want +got):\n%s", diff)
	}
}

// told reads the gauge as the monitor does.
func told(t *testing.T, r *metric.Registry, dir string) map[string]string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, dir, "node", "no such group") }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			for {
				c, err := d.DialContext(ctx, "unix", filepath.Join(dir, "node.sock"))
				if err == nil || ctx.Err() != nil {
					return c, err
				}
			}
		},
	}}
	res, err := client.Get("http://process/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, m := range regexp.MustCompile(`trivet_process_pid\{process="([^"]+)"\} (\d+)`).FindAllStringSubmatch(string(body), -1) {
		got[m[1]] = m[2]
	}
	return got
}
