package cli

import (
	"bytes"
	"testing"
	"time"

	"trivet/database/router/digest"
)

func someQueries() queries {
	at := time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)
	totals := func(count, errors, rows uint64, sum, longest time.Duration) digest.Totals {
		return digest.Totals{Count: count, Errors: errors, Rows: rows, Time: sum, Max: longest}
	}
	of := func(text string, t digest.Totals, bucket int) digest.Digest {
		return digest.Digest{ID: text, Text: text, Totals: t, First: at, Last: at, Times: []digest.Bucket{{Number: bucket, Count: t.Count}}}
	}
	one := digest.Report{
		Since: at, Slow: time.Second, All: totals(1110, 3, 1000, 4*time.Second, 1200*time.Millisecond),
		Times:   []digest.Bucket{{Number: -18, Count: 1100}, {Number: 0, Count: 10}},
		Digests: []digest.Digest{of("select * from t where id = ?", totals(1000, 0, 1000, 2*time.Second, 9*time.Millisecond), -18), of("insert into t values (?+)", totals(100, 3, 0, time.Second, 20*time.Millisecond), -13)},
		Others:  totals(10, 0, 0, time.Second, 1200*time.Millisecond),
		Slowest: []digest.Slow{{At: at, ID: "0", Text: "select sleep(?)", Took: 1200 * time.Millisecond}},
	}
	one.All.Slow = 1
	other := digest.Report{
		Since: at.Add(time.Hour), Slow: time.Second, All: totals(1, 0, 0, 2*time.Second, 2*time.Second), Times: []digest.Bucket{{Number: 2, Count: 1}},
		Digests: []digest.Digest{of("insert into t values (?+)", totals(1, 0, 0, 2*time.Second, 2*time.Second), 2)},
		Slowest: []digest.Slow{{At: at.Add(time.Hour), ID: "1", Text: "insert into t values (?+)", Took: 2 * time.Second, Failed: true}},
	}
	other.All.Slow = 1
	return queries{Report: digest.Merge(one, other), Errors: map[string]string{"s3": "it is off"}}
}

func TestDatabaseQueries(t *testing.T) {
	for _, tt := range []struct {
		golden string
		view   queryView
	}{
		{"db-queries.txt", queryView{by: "time", most: 20}},
		{"db-queries-max.txt", queryView{by: "max", most: 1}},
		{"db-queries-slow.txt", queryView{by: "time", most: 20, slow: true}},
	} {
		var out bytes.Buffer
		if err := tt.view.print(&out, someQueries(), false); err != nil {
			t.Fatal(err)
		}
		compareGolden(t, tt.golden, out.Bytes())
	}
	var out bytes.Buffer
	if err := (&queryView{by: "time"}).print(&out, queries{}, false); err != nil || out.String() != "the app has asked nothing yet\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}
