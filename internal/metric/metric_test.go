package metric

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// serve runs r's socket until the test ends and returns its path.
func serve(t *testing.T, r *Registry, dir string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, dir, "web", "no-such-group") }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
	})
	return filepath.Join(dir, "web.sock")
}

// read gets the metrics over the socket, waiting until it is there.
func read(t *testing.T, path, accept string) []byte {
	t.Helper()
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			for {
				conn, err := d.DialContext(ctx, "unix", path)
				if err == nil || ctx.Err() != nil {
					return conn, err
				}
			}
		},
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://process/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestServeText(t *testing.T) {
	r := NewRegistry()
	r.Counter("trivet_test_requests_total", "Requests.", "code").WithLabelValues("200").Add(3)
	r.Gauge("trivet_test_open", "Open.").WithLabelValues().Set(7)
	r.GaugeFunc("trivet_test_asked", "Asked for.", func() float64 { return 42 })
	path := serve(t, r, t.TempDir())
	got := string(read(t, path, "text/plain"))
	for _, want := range []string{
		`trivet_test_requests_total{code="200"} 3`, `trivet_test_open 7`, `trivet_test_asked 42`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o660 {
		t.Errorf("socket's mode = %o, want 660", got)
	}
}

// The native buckets travel only in the protobuf format.
func TestServeNativeHistogram(t *testing.T) {
	r := NewRegistry()
	h := r.Histogram("trivet_test_seconds", "Time.").WithLabelValues()
	for _, v := range []float64{0.001, 0.001, 0.5} {
		h.Observe(v)
	}
	data := read(t, serve(t, r, t.TempDir()), "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited")
	size, n := binary.Uvarint(data)
	if n <= 0 || int(size) > len(data)-n {
		t.Fatalf("%d bytes are no delimited message", len(data))
	}
	var family dto.MetricFamily
	if err := proto.Unmarshal(data[n:n+int(size)], &family); err != nil {
		t.Fatal(err)
	}
	got := family.GetMetric()[0].GetHistogram()
	if got.GetSampleCount() != 3 || got.GetSchema() != 3 || len(got.GetPositiveSpan()) != 2 {
		t.Errorf("count, schema, spans = %d, %d, %d, want 3, 3, 2", got.GetSampleCount(), got.GetSchema(), len(got.GetPositiveSpan()))
	}
	if len(got.GetBucket()) != 0 {
		t.Errorf("classic buckets = %d, want none", len(got.GetBucket()))
	}
}

// What was counted elsewhere is as if it had been observed.
func TestHistogramFunc(t *testing.T) {
	r := NewRegistry()
	r.HistogramFunc("trivet_test_seconds", "Time.", func() Buckets {
		return Buckets{Schema: 1, Count: 3, Sum: 0.502, Positive: map[int]int64{-19: 2, -2: 1}}
	})
	data := read(t, serve(t, r, t.TempDir()), "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited")
	size, n := binary.Uvarint(data)
	if n <= 0 || int(size) > len(data)-n {
		t.Fatalf("%d bytes are no delimited message", len(data))
	}
	var family dto.MetricFamily
	if err := proto.Unmarshal(data[n:n+int(size)], &family); err != nil {
		t.Fatal(err)
	}
	got := family.GetMetric()[0].GetHistogram()
	if got.GetSampleCount() != 3 || got.GetSampleSum() != 0.502 || got.GetSchema() != 1 || len(got.GetPositiveSpan()) != 2 || got.GetPositiveSpan()[0].GetOffset() != -19 {
		t.Errorf("got %v", got)
	}
}

func TestServeReplacesDeadSocket(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "web.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := NewRegistry()
	r.Counter("trivet_test_total", "Test.").WithLabelValues().Inc()
	lines := bufio.NewScanner(strings.NewReader(string(read(t, serve(t, r, dir), "text/plain"))))
	for lines.Scan() {
		if lines.Text() == "trivet_test_total 1" {
			return
		}
	}
	t.Error("trivet_test_total 1 is not served")
}

func TestServeWithoutFolder(t *testing.T) {
	if err := NewRegistry().Serve(t.Context(), filepath.Join(t.TempDir(), "no"), "web", "x"); err == nil {
		t.Error("Serve = nil, want that there is no folder")
	}
}
