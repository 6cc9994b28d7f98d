package monitor

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/metric"
	"trivet/internal/overview"
	"trivet/internal/part"
	"trivet/site"
)

// A notice that its sender did not live to deliver is the next sender's; one
// that it did deliver is nobody's.
func TestOutbox(t *testing.T) {
	alert := site.Alert{Name: "busy", Above: 100, Webhook: "https://hook.example/"}
	now := time.Now().Unix()
	state := func(holder string, s1 bool) part.State {
		return part.State{Server: "s2", AddressHolder: holder, Members: []part.Member{{Name: "s1", Alive: s1}, {Name: "s2", Alive: true}}}
	}
	for _, test := range []struct {
		name   string
		before []overview.Event // what s1 said before s2 noticed
		after  []overview.Event // and what after
		holder part.State
		want   []string
	}{
		{"the sender lives", nil, nil, state("s1", true), nil},
		{"the sender died before", nil, nil, state("s1", false), []string{"busy firing"}},
		{"the address moved before", nil, nil, state("s2", true), []string{"busy firing"}},
		{"it was delivered", nil, []overview.Event{{Time: now, Told: "busy firing"}}, state("s1", false), nil},
		{"it was delivered first", []overview.Event{{Time: now - 1, Told: "busy firing"}}, nil, state("s1", false), nil},
		{"an older one was delivered", []overview.Event{{Time: now - 100, Told: "busy firing"}}, nil, state("s1", false), []string{"busy firing"}},
		{"another was delivered", nil, []overview.Event{{Time: now, Told: "busy resolved"}}, state("s1", false), []string{"busy firing"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := New(Config{Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry()})
			m.rules = rules(nil, []site.Alert{alert})
			m.add("s1", overview.Frame{Events: test.before})
			m.step(now, notice{Value: 500}, false)
			m.add("s1", overview.Frame{Events: test.after})
			m.flush(test.holder)
			m.flush(test.holder) // it is queued once
			var got []string
			for len(m.webhook.queue) > 0 {
				n := <-m.webhook.queue
				got = append(got, n.told())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
		})
	}
}
