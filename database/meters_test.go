package database

import (
	"testing"

	dto "github.com/prometheus/client_model/go"

	"trivet/internal/metric"
)

// The counter only grows by what ran while somebody looked: neither a new node
// nor a new mariadbd makes it jump.
func TestQueriesAreCounted(t *testing.T) {
	m := newMeters(metric.NewRegistry())
	for _, step := range []struct{ said, want float64 }{{1000, 0}, {1010, 10}, {1010, 10}, {4, 14}, {9, 19}} {
		m.count(step.said)
		var out dto.Metric
		if err := m.queries.Write(&out); err != nil {
			t.Fatal(err)
		}
		if got := out.GetCounter().GetValue(); got != step.want {
			t.Errorf("after mariadbd said %v: counted %v, want %v", step.said, got, step.want)
		}
	}
}
