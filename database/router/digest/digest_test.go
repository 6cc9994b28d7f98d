package digest

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/metric"
)

func newTable() (*Table, *bytes.Buffer) {
	var out bytes.Buffer
	return New(slog.New(slog.NewTextHandler(&out, nil)), metric.NewRegistry()), &out
}

func say(t *Table, text string, took time.Duration) {
	t.Observe(Statement{Text: []byte(text), Took: took})
}

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, _ := newTable()
		begun := time.Now()
		say(table, "SELECT 1", 2*time.Millisecond)
		time.Sleep(time.Minute)
		table.Observe(Statement{Text: []byte("select 2"), Took: 4 * time.Millisecond, Failed: true, Rows: 3})
		say(table, "DO 1", 3*time.Second)
		say(table, "", time.Microsecond)
		_, one := folded("select 2", false)
		_, do := folded("do 1", false)
		_, none := folded("", false)
		want := Report{
			Since: begun, Slow: time.Second,
			All:   Totals{Count: 4, Errors: 1, Slow: 1, Rows: 3, Time: 3*time.Second + 6*time.Millisecond + time.Microsecond, Max: 3 * time.Second},
			Times: []Bucket{{-32, 1}, {-17, 1}, {-15, 1}, {4, 1}},
			Digests: []Digest{
				{ID: name(do), Text: "do ?", Totals: Totals{Count: 1, Slow: 1, Time: 3 * time.Second, Max: 3 * time.Second}, First: time.Now(), Last: time.Now(), Times: []Bucket{{4, 1}}},
				{ID: name(one), Text: "select ?", Totals: Totals{Count: 2, Errors: 1, Rows: 3, Time: 6 * time.Millisecond, Max: 4 * time.Millisecond}, First: begun, Last: time.Now(), Times: []Bucket{{-17, 1}, {-15, 1}}},
				{ID: name(none), Text: "(not kept)", Totals: Totals{Count: 1, Time: time.Microsecond, Max: time.Microsecond}, First: time.Now(), Last: time.Now(), Times: []Bucket{{-32, 1}}},
			},
			Slowest: []Slow{{At: time.Now(), ID: name(do), Text: "do ?", Took: 3 * time.Second}},
		}
		if diff := cmp.Diff(want, table.Report()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// What is used little makes place; what is used much stays; nothing is missing in the sums.
func TestBounded(t *testing.T) {
	table, _ := newTable()
	for i := range 3 * most {
		say(table, "SELECT often", time.Millisecond)
		say(table, fmt.Sprintf("SELECT c%d", i), time.Millisecond)
	}
	r := table.Report()
	if n := len(table.digests); n != most {
		t.Errorf("%d digests, want %d", n, most)
	}
	if r.Digests[0].Text != "select often" || r.Digests[0].Count != 3*most {
		t.Errorf("the first is %+v, want what was used most", r.Digests[0])
	}
	sum := r.Others.Count
	for _, d := range r.Digests {
		sum += d.Count
	}
	if len(r.Digests) != mostShown || sum != 6*most || r.All.Count != 6*most {
		t.Errorf("%d digests, together with others %d statements of %d; want %d and %d", len(r.Digests), sum, r.All.Count, mostShown, 6*most)
	}
}

// What was used much long ago makes place too.
func TestForgotten(t *testing.T) {
	table, _ := newTable()
	for range 100 {
		say(table, "SELECT old", time.Hour)
	}
	for i := range 10 * most {
		for range 3 {
			say(table, fmt.Sprintf("SELECT c%d", i), time.Millisecond)
		}
	}
	if got := table.Report().Digests[0].Text; got == "select old" {
		t.Errorf("%q is still there", got)
	}
}

// The log has no literals, and not more than some lines a second.
func TestSlowLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, out := newTable()
		table.SlowFrom(10 * time.Millisecond)
		say(table, "SELECT 'secret'", 9*time.Millisecond)
		for range mostLogged + 3 {
			say(table, "SELECT 'secret', SLEEP(5)", 10*time.Millisecond)
		}
		time.Sleep(time.Second)
		say(table, "SELECT 'secret' FROM t", time.Second)
		if n := strings.Count(out.String(), `msg="slow statement"`); n != mostLogged+1 || strings.Contains(out.String(), "secret") {
			t.Errorf("%d lines, want %d without a literal:\n%s", n, mostLogged+1, out)
		}
		if !strings.Contains(out.String(), `statement="select ? from t" unlogged=3`) {
			t.Errorf("the last line does not say how many were not logged:\n%s", out)
		}
		if n := len(table.Report().Slowest); n != mostLogged+4 {
			t.Errorf("%d slow ones are remembered, want %d", n, mostLogged+4)
		}
		for range 2 * mostSlow {
			say(table, "SELECT 1", time.Second)
		}
		if n := len(table.Report().Slowest); n != mostSlow {
			t.Errorf("%d slow ones are remembered, want %d", n, mostSlow)
		}
	})
}

func TestMerge(t *testing.T) {
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	a := Report{
		Since: at, Slow: time.Second, All: Totals{Count: 3, Time: 30}, Times: []Bucket{{1, 3}}, Others: Totals{Count: 1},
		Digests: []Digest{{ID: "1", Text: "x", Totals: Totals{Count: 2, Time: 10, Max: 7}, First: at, Last: at, Times: []Bucket{{1, 2}}}},
		Slowest: []Slow{{At: at, Text: "x"}},
	}
	b := Report{
		Since: at.Add(-1), Slow: time.Second, All: Totals{Count: 2, Time: 40}, Times: []Bucket{{1, 1}, {2, 1}},
		Digests: []Digest{
			{ID: "2", Text: "y", Totals: Totals{Count: 1, Time: 15}, First: at, Last: at},
			{ID: "1", Text: "x", Totals: Totals{Count: 1, Time: 9, Max: 9}, First: at.Add(-1), Last: at.Add(1), Times: []Bucket{{2, 1}}},
		},
		Slowest: []Slow{{At: at.Add(1), Text: "y"}},
	}
	want := Report{
		Since: at.Add(-1), Slow: time.Second, All: Totals{Count: 5, Time: 70}, Times: []Bucket{{1, 4}, {2, 1}}, Others: Totals{Count: 1},
		Digests: []Digest{
			{ID: "1", Text: "x", Totals: Totals{Count: 3, Time: 19, Max: 9}, First: at.Add(-1), Last: at.Add(1), Times: []Bucket{{1, 2}, {2, 1}}},
			{ID: "2", Text: "y", Totals: Totals{Count: 1, Time: 15}, First: at, Last: at},
		},
		Slowest: []Slow{{At: at.Add(1), Text: "y"}, {At: at, Text: "x"}},
	}
	if diff := cmp.Diff(want, Merge(a, b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestQuantile(t *testing.T) {
	table, _ := newTable()
	for i := range 1000 {
		say(table, "DO 1", time.Duration(i+1)*time.Millisecond)
	}
	times := table.Report().Times
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.95: 950 * time.Millisecond, 0.01: 10 * time.Millisecond} {
		if got := Quantile(times, q); got < want*4/5 || got > want*6/5 {
			t.Errorf("quantile %v = %v, want %v within 20 %%", q, got, want)
		}
	}
	if got := Quantile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// Statements that are known cost no memory.
func TestObserveAllocates(t *testing.T) {
	table, _ := newTable()
	s := Statement{Text: []byte(typical), Took: time.Millisecond}
	table.Observe(s)
	if n := testing.AllocsPerRun(1000, func() { table.Observe(s) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

const typical = "SELECT wp_posts.ID, wp_posts.post_title FROM wp_posts LEFT JOIN wp_term_relationships ON (wp_posts.ID = wp_term_relationships.object_id) " +
	"WHERE 1=1 AND wp_term_relationships.term_taxonomy_id IN (4, 7, 19) AND wp_posts.post_status = 'publish' ORDER BY wp_posts.post_date DESC LIMIT 0, 10"

func BenchmarkObserve(b *testing.B) {
	for name, text := range map[string]string{"short": "SELECT v FROM t WHERE id = 42", "typical": typical, "long": "INSERT INTO t VALUES " + strings.Repeat("(1, 'some text', NOW()), ", 4000) + "(1)"} {
		b.Run(name, func(b *testing.B) {
			table, _ := newTable()
			s := Statement{Text: []byte(text), Took: time.Millisecond}
			b.ReportAllocs()
			for b.Loop() {
				table.Observe(s)
			}
		})
	}
}
