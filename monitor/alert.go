package monitor

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"trivet/internal/overview"
	"trivet/internal/part"
	"trivet/site"
)

// rule is one threshold on the site's requests per second, and where it stands:
// ok → pending → firing → ok. Every monitor steps its own; one sends.
type rule struct {
	site.Alert
	unit  string                                    // of Above
	gauge string                                    // that it is on; empty: the site's requests per second
	of    func(s part.State, now time.Time) float64 // the value; nil: the site's requests per second
	state string
	since int64 // of state, Unix seconds
	below int64 // firing only: since when the value has been below; 0: it is not
}

// step tells the rule the value of the second t. It returns true when the rule
// begins or ceases to fire: the caller reads which from state.
func (r *rule) step(t int64, value float64) bool {
	above := value > r.Above
	long := int64(r.For.Std() / time.Second)
	switch {
	case r.state == overview.AlertFiring && above:
		r.below = 0
	case r.state == overview.AlertFiring:
		if r.below == 0 {
			r.below = t
		}
		if t-r.below >= long {
			r.become(overview.AlertOK, t)
			return true
		}
	case !above:
		if r.state != overview.AlertOK {
			r.become(overview.AlertOK, t)
		}
	case r.state == overview.AlertOK:
		r.become(overview.AlertPending, t)
		fallthrough
	default:
		if t-r.since >= long {
			r.become(overview.AlertFiring, t)
			return true
		}
	}
	return false
}

func (r *rule) become(state string, t int64) {
	r.state, r.since, r.below = state, t, 0
}

// rules keeps the standing of those of now that are in next too, unchanged.
func rules(now []*rule, next []site.Alert) []*rule {
	out := make([]*rule, len(next))
	for i, a := range next {
		j := slices.IndexFunc(now, func(r *rule) bool {
			return r.Name == a.Name && r.Above == a.Above && r.For == a.For
		})
		out[i] = &rule{Alert: a, unit: unitRequests, state: overview.AlertOK}
		if j >= 0 {
			out[i].state, out[i].since, out[i].below = now[j].state, now[j].since, now[j].below
		}
	}
	return out
}

// Units of a rule's value.
const (
	unitRequests = "requests/s"
	unitDisk     = "% of a disk"
	unitHours    = "hours"
)

// show is the rule for the console.
func (r *rule) show() overview.Alert {
	return overview.Alert{Name: r.Name, State: r.state, Above: r.Above, Unit: r.unit, For: r.For.String(), Since: r.since}
}

// sends reports whether this server is the one that sends notices: the one
// that holds the address, or the first by name of those alive if that is gone.
func sends(s part.State) bool {
	if m, ok := s.Member(s.AddressHolder); ok && m.Alive {
		return m.Name == s.Server
	}
	first := ""
	for _, m := range s.Members {
		if m.Alive && (first == "" || m.Name < first) {
			first = m.Name
		}
	}
	return first == s.Server
}

// notice is the body of a webhook's POST.
type notice struct {
	Alert     string             `json:"alert"`
	Status    string             `json:"status"` // firing or resolved
	Value     float64            `json:"value"`  // now; of requests, those of all servers together
	Threshold float64            `json:"threshold"`
	Unit      string             `json:"unit"`  // of both
	Since     time.Time          `json:"since"` // when it began to fire, or ceased to
	Site      string             `json:"site"`
	Server    string             `json:"server"`  // which sends this
	Servers   map[string]float64 `json:"servers"` // requests per second of each
	url       string
}

// event says in words what the notice says.
func (n notice) event() overview.Event {
	word := "fires"
	if n.Status == statusResolved {
		word = "is over"
	}
	return overview.Event{
		Time: n.Since.Unix(),
		Text: fmt.Sprintf("Alert %s %s: %.0f %s, threshold %.0f", n.Alert, word, n.Value, cmp.Or(n.Unit, unitRequests), n.Threshold),
	}
}

// Values of notice.Status.
const (
	statusFiring   = "firing"
	statusResolved = "resolved"
)

func (r *rule) status() string {
	if r.state == overview.AlertFiring {
		return statusFiring
	}
	return statusResolved
}
