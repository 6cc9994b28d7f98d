package monitor

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/overview"
	"trivet/internal/part"
	"trivet/site"
)

func TestRule(t *testing.T) {
	const lo, hi = 50, 200
	for _, test := range []struct {
		name   string
		values []float64 // one a second
		want   []string  // what is sent, with its second
	}{
		{"a short peak", []float64{lo, hi, hi, lo, lo}, nil},
		{"long enough", []float64{lo, hi, hi, hi, hi, hi}, []string{"4 firing"}},
		{"a dip while it fires", []float64{hi, hi, hi, hi, lo, lo, hi, lo, lo, lo, lo}, []string{"3 firing", "10 resolved"}},
		{"exactly the threshold", []float64{100, 100, 100, 100, 100}, nil},
		{"twice", []float64{hi, hi, hi, hi, lo, lo, lo, lo, hi, hi, hi, hi}, []string{"3 firing", "7 resolved", "11 firing"}},
	} {
		r := rules(nil, []site.Alert{{Name: "busy", Above: 100, For: site.Duration(3 * time.Second)}})[0]
		var got []string
		for i, v := range test.values {
			if r.step(int64(i)+1000, v) {
				got = append(got, fmt.Sprint(i, " ", r.status()))
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestRulesKeepTheirStanding(t *testing.T) {
	old := site.Alert{Name: "busy", Above: 100}
	now := rules(nil, []site.Alert{old})
	now[0].step(1, 500)
	moved := old
	moved.Webhook = "https://elsewhere.example/"
	other := site.Alert{Name: "busy", Above: 200}
	if got := rules(now, []site.Alert{moved})[0].state; got != overview.AlertFiring {
		t.Errorf("with another webhook: got %s", got)
	}
	if got := rules(now, []site.Alert{other})[0].state; got != overview.AlertOK {
		t.Errorf("with another threshold: got %s", got)
	}
}

func TestStandingSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	alerts := []site.Alert{{Name: "busy", Above: 100}, {Name: "flood", Above: 1000}}
	before := &Monitor{cfg: Config{SeriesDir: dir}, rules: rules(nil, alerts)}
	before.step(7, notice{Value: 500}, true)
	before.Note("it began")
	if err := before.save(); err != nil {
		t.Fatal(err)
	}
	after := &Monitor{cfg: Config{SeriesDir: dir}, rules: rules(nil, alerts)}
	if err := after.recall(); err != nil {
		t.Fatal(err)
	}
	if len(after.events) != 1 || after.events[0].Text != "it began" {
		t.Errorf("events after the restart: got %+v", after.events)
	}
	got := []string{after.rules[0].state, after.rules[1].state, fmt.Sprint(after.rules[0].since)}
	if diff := cmp.Diff([]string{overview.AlertFiring, overview.AlertOK, "7"}, got); diff != "" {
		t.Errorf("after the restart (-want +got):\n%s", diff)
	}
	if sent := after.step(8, notice{Value: 500}, true); len(sent) > 0 {
		t.Errorf("sent twice: %+v", sent)
	}
	if sent := after.step(9, notice{Value: 5}, true); len(sent) != 1 || sent[0].Status != statusResolved {
		t.Errorf("its end: got %+v, want it resolved", sent)
	}
}

func TestOneSends(t *testing.T) {
	for _, test := range []struct {
		name, holder string
		alive        []string
		want         string
	}{
		{"the holder", "s2", []string{"s1", "s2", "s3"}, "s2"},
		{"no holder", "", []string{"s1", "s2", "s3"}, "s1"},
		{"a dead holder", "s1", []string{"s2", "s3"}, "s2"},
	} {
		var got string
		for _, name := range test.alive {
			s := part.State{Server: name, AddressHolder: test.holder, Members: []part.Member{{Name: "s1"}, {Name: "s2"}, {Name: "s3"}}}
			for i := range s.Members {
				for _, a := range test.alive {
					s.Members[i].Alive = s.Members[i].Alive || a == s.Members[i].Name
				}
			}
			if sends(s) {
				got += name
			}
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// flaky is a webhook's server that is down for some attempts.
type flaky struct{ down, attempts int }

func (f *flaky) RoundTrip(*http.Request) (*http.Response, error) {
	f.attempts++
	if f.attempts <= f.down {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: 200, Status: "200 OK", Body: http.NoBody}, nil
}

func TestWebhookTriesAgain(t *testing.T) {
	for down, want := range map[int]string{
		0: "Webhook told: busy firing", 3: "Webhook told: busy firing",
		99: "Webhook of busy does not answer: connection refused",
	} {
		synctest.Test(t, func(t *testing.T) {
			var events []string
			w := newWebhook(slog.New(slog.DiscardHandler))
			w.mine = func() bool { return true }
			w.settled = func(_ notice, s string) { events = append(events, s) }
			f := &flaky{down: down}
			w.client = &http.Client{Transport: f, Timeout: noticeTimeout}
			w.deliver(t.Context(), notice{Alert: "busy", Status: statusFiring, url: "http://hook.example/secret"})
			if diff := cmp.Diff([]string{want}, events); diff != "" {
				t.Errorf("down for %d (-want +got):\n%s", down, diff)
			}
			if want := min(down+1, noticeAttempts); f.attempts != want {
				t.Errorf("down for %d: got %d attempts, want %d", down, f.attempts, want)
			}
		})
	}
}
