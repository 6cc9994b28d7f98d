package monitor

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"

	"trivet/internal/overview"
	"trivet/site"
)

// A built-in alert fires by the highest of what the servers say, and not before anyone has said it.
func TestRuleOnGauge(t *testing.T) {
	own := []site.Alert{{Name: "busy", Above: 100}, {Name: "flood", Above: 1000, Webhook: "https://hook.example/"}}
	m := &Monitor{rules: append(rules(nil, own), gaugeRules(nil, own)...)}
	disk := m.rules[2]
	if disk.Name != "database's disk" || disk.Webhook != "https://hook.example/" {
		t.Fatalf("the built-in rule: got %+v", disk.Alert)
	}
	begun := time.Now().Unix()
	step := func(after int64) []notice { return m.step(begun+after, notice{Value: 5, Unit: unitRequests}, false) }
	if got := step(0); len(got) > 0 || disk.state != overview.AlertOK {
		t.Errorf("before anyone spoke: got %v, %s", got, disk.state)
	}
	m.observe("s1", overview.Frame{Watched: map[string]float64{disk.gauge: 50}})
	m.observe("s2", overview.Frame{Watched: map[string]float64{disk.gauge: 83}})
	m.observe("s2", overview.Frame{}) // a second without a word
	step(1)
	if disk.state != overview.AlertPending {
		t.Fatalf("above: got %s, want %s", disk.state, overview.AlertPending)
	}
	got := step(31)
	if len(got) != 1 || got[0].Alert != "database's disk" || got[0].Status != statusFiring || got[0].Value != 83 {
		t.Fatalf("for long enough: got %+v", got)
	}
	if diff := cmp.Diff(map[string]float64{"s1": 50, "s2": 83}, got[0].Servers); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
	if got, want := got[0].event().Text, "Alert database's disk fires: 83 % of a disk, threshold 80"; got != want {
		t.Errorf("event: got %q, want %q", got, want)
	}
	if next := gaugeRules(m.rules, own[:1])[0]; next.state != overview.AlertFiring || next.gauge != disk.gauge {
		t.Errorf("after another site file: got %+v, want it to stand as it did", next)
	}
	m.observe("s2", overview.Frame{Watched: map[string]float64{disk.gauge: 60}})
	step(32)
	if got := step(62); len(got) != 1 || got[0].Status != statusResolved {
		t.Errorf("below again: got %+v", got)
	}
}

// The gauge is found among the metrics of any process, and the highest counts.
func TestWatchedGauge(t *testing.T) {
	const name = "trivet_database_disk_used_percent"
	l := labels.FromStrings("__name__", name)
	var sum totals
	for _, v := range []float64{0.4, 0.9, 0.1} {
		sum.float(&series{labels: l, meaning: meaningOf(l, "node")}, v, true, 0)
	}
	if diff := cmp.Diff(map[string]float64{name: 0.9}, sum.watched); diff != "" {
		t.Errorf("watched (-want +got):\n%s", diff)
	}
}
