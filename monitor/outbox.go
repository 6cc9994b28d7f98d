package monitor

import (
	"slices"
	"time"

	"trivet/internal/overview"
	"trivet/internal/part"
)

const (
	outboxLife = 10 * time.Minute // after which a notice is news no more
	outboxSlop = 2                // seconds by which two monitors may differ
)

// pending is a notice that nobody is known to have delivered.
//
// Every monitor keeps those that its own rules made. The one that sends tells
// the others on their streams what it has delivered, and they forget it. If it
// dies before, whoever sends next delivers what is left. So no notice is lost
// while one server lives; one is sent twice only if its sender died after
// delivering it and before the others heard of that, within a second.
type pending struct {
	Notice notice `json:"notice"`
	queued bool   // the webhook has it
}

// told names what an event says was delivered.
func (n notice) told() string { return n.Alert + " " + n.Status }

// hold keeps n until it is delivered, unless another server has done so already; m.mu is held.
func (m *Monitor) hold(n notice, mine bool) {
	known := func(e overview.Event) bool { return e.Told == n.told() && e.Time >= n.Since.Unix()-outboxSlop }
	if mine || !slices.ContainsFunc(m.events, known) {
		m.pending = append(m.pending, &pending{Notice: n})
	}
}

// forget drops the oldest notice that an event says was delivered; m.mu is held.
func (m *Monitor) forget(e overview.Event) {
	i := slices.IndexFunc(m.pending, func(p *pending) bool {
		return p.Notice.told() == e.Told && e.Time >= p.Notice.Since.Unix()-outboxSlop
	})
	if e.Told != "" && i >= 0 {
		m.pending = slices.Delete(m.pending, i, i+1)
		m.unsaved = true
	}
}

// flush gives what is pending to the webhook, if this server is the one that sends.
func (m *Monitor) flush(s part.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending = slices.DeleteFunc(m.pending, func(p *pending) bool { return time.Since(p.Notice.Since) > outboxLife })
	if !sends(s) {
		return
	}
	for _, p := range m.pending {
		n := p.Notice
		i := slices.IndexFunc(m.rules, func(r *rule) bool { return r.Name == n.Alert })
		if p.queued || i < 0 || m.rules[i].Webhook == "" {
			continue
		}
		n.url, n.Server = m.rules[i].Webhook, s.Server
		p.queued = m.webhook.post(n)
	}
}

// settled takes the webhook's word on a notice: it was delivered, or given up.
func (m *Monitor) settled(n notice, text string) {
	e := overview.Event{Time: time.Now().Unix(), Text: text, Told: n.told()}
	m.mu.Lock()
	m.forget(e)
	m.share(e)
	m.mu.Unlock()
	m.remember()
}

// returned takes back a notice that is another server's to send by now.
func (m *Monitor) returned(n notice) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.pending {
		if p.Notice.told() == n.told() && p.Notice.Since.Equal(n.Since) {
			p.queued = false
		}
	}
}
