package monitor

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

const childEnv = "TRIVET_TEST_SERIES"

// TestMain turns the test's program into the child of TestStoreSurvivesKill when told so.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		appendForever(dir)
	}
	os.Exit(m.Run())
}

// appendForever appends one sample after the other, and says so after each.
func appendForever(dir string) {
	s, _ := openStore(context.Background(), dir)
	one := &series{labels: labels.FromStrings(model.MetricNameLabel, "count")}
	base := time.Now().UnixMilli()
	for i := 0; ; i++ {
		s.Append(context.Background(), func(a storage.Appender, generation int) {
			k := &sink{appender: a, generation: generation, time: base + int64(i)}
			k.float(one, float64(i))
		})
		fmt.Println(i)
	}
}

// openStore opens a store and returns once it takes samples.
func openStore(ctx context.Context, dir string) (*Store, *sync.WaitGroup) {
	s := NewStore(slog.New(slog.NewTextHandler(os.Stderr, nil)), dir)
	s.Retain(time.Hour)
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	for s.Check() != nil {
		time.Sleep(time.Millisecond)
	}
	return s, &wg
}

func TestStoreSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said := 0
	for lines := bufio.NewScanner(out); said < 500 && lines.Scan(); said++ {
	}
	_ = child.Process.Kill()
	_ = child.Wait()

	ctx, cancel := context.WithCancel(t.Context())
	s, wg := openStore(ctx, dir)
	defer wg.Wait()
	defer cancel()
	if got := samples(t, s, "count"); len(got) < said || got[said-1] != float64(said-1) {
		t.Errorf("got %d samples after the kill, want at least %d", len(got), said)
	}
}

// samples reads all values of a series.
func samples(t *testing.T, s *Store, name string) []float64 {
	t.Helper()
	q, err := s.db.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name))
	var out []float64
	for set.Next() {
		for it := set.At().Iterator(nil); it.Next() != 0; {
			_, v := it.At()
			out = append(out, v)
		}
	}
	return out
}

func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("trivet-test", dir, "tmpfs", 0, "size=200m"); err != nil {
		t.Skip("needs to mount: " + err.Error())
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	ctx, cancel := context.WithCancel(t.Context())
	s, wg := openStore(ctx, dir)
	defer wg.Wait()
	defer cancel()
	hog := dir + "/hog"
	if err := os.WriteFile(hog, make([]byte, 150<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tried := 0
	try := func() error {
		s.Append(ctx, func(a storage.Appender, _ int) { tried++ })
		return s.Check()
	}
	if err := try(); err == nil || !strings.Contains(err.Error(), "disk is full") || tried != 1 {
		t.Errorf("on a full disk: got %v, filled %d times", err, tried)
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	if err := try(); err != nil {
		t.Errorf("after space was freed: got %v", err)
	}
}

func TestQuantile(t *testing.T) {
	// Schema 0: the bucket with index i ends at 2^i. 90 between 1 and 2, 10 between 8 and 16.
	h := &histogram.FloatHistogram{
		Count: 100, PositiveSpans: []histogram.Span{{Offset: 1, Length: 1}, {Offset: 2, Length: 1}},
		PositiveBuckets: []float64{90, 10},
	}
	for _, test := range []struct{ q, want float64 }{{0.45, math.Sqrt2}, {0.9, 2}, {0.95, 8 * math.Sqrt2}, {1, 16}} {
		if got := quantile(h, test.q); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("quantile %v: got %v, want %v", test.q, got, test.want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: got %v", got)
	}
}
