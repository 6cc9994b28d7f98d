package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/part"
)

// compareGolden compares got with the file of that name in testdata/golden.
func compareGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// seen is what three servers say: two balancers of all kinds of backends, and one that cannot be asked.
func seen(now time.Time) []balancerReport {
	before := func(d time.Duration) time.Time { return now.Add(-d) }
	until := now.Add(7200 * time.Millisecond)
	return []balancerReport{
		{Server: "s1", Balancer: &part.BalancerStatus{
			Server: "s1", Policy: "ewma", Connections: 12, Tunnels: 1, InFlight: 4, Queued: 0, Limit: 96, Shed: 2, Retries: 1,
			Backends: []part.BackendStatus{
				{Name: "s1", State: "up", Since: before(26 * time.Hour), Weight: 100, Effective: 100, InFlight: 3, Kept: 8, Latency: 1234567, Requests: 123456, Failures: 7},
				{Name: "s2", State: "slow-start", Since: before(3 * time.Second), Weight: 100, Effective: 33.4, InFlight: 1, Kept: 1, Latency: 345678, Requests: 12},
				{Name: "s3", State: "ejected", Why: "5 errors", Since: before(2800 * time.Millisecond), Weight: 100, Requests: 9999, Failures: 5, Latency: 2345678901, Until: &until},
			},
		}},
		{Server: "s2", Balancer: &part.BalancerStatus{
			Server: "s2", Policy: "hash", Maintenance: true, Connections: 1,
			Backends: []part.BackendStatus{
				{Name: "s1", State: "unwell", Why: "GET /healthz: 503", Since: before(time.Minute + 5*time.Second), Weight: 50, Effective: 50},
				{Name: "s2", State: "drained", Since: before(2*time.Hour + 3*time.Minute), Weight: 100, Effective: 100},
				{Name: "s3", State: "down", Why: "connection refused", Weight: 1000, Effective: 1000},
			},
		}},
		{Server: "s3", Error: "it is off; `trivet lab start s3` starts it"},
	}
}

func TestPrintBalancers(t *testing.T) {
	zone := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = zone })
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, colour := range map[string]bool{"balancer.txt": false, "balancer-colour.txt": true} {
		var out bytes.Buffer
		if err := printBalancers(&out, seen(now), now, colour); err != nil {
			t.Fatal(err)
		}
		compareGolden(t, name, out.Bytes())
	}
}

func TestSpan(t *testing.T) {
	tests := map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59900 * time.Millisecond: "59s", time.Minute: "1m00s",
		time.Hour - time.Second: "59m59s", 25 * time.Hour: "1d01h", 23*time.Hour + 59*time.Minute: "23h59m",
	}
	for d, want := range tests {
		if got := span(d); got != want {
			t.Errorf("span(%s) = %q, want %q", d, got, want)
		}
	}
}
