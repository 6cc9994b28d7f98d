package monitor

import (
	"slices"
	"time"

	"trivet/internal/overview"
	"trivet/site"
)

// onGauges are the alerts that every site has on a gauge that any process
// shows: the highest that a server has counts. They go to the first webhook
// that the site's own alerts name.
var onGauges = []rule{
	{Alert: site.Alert{Name: "database's disk", Above: 80, For: site.Duration(30 * time.Second)}, gauge: "trivet_database_disk_used_percent", unit: unitDisk},
}

// watched reports whether an alert is on the gauge of that name.
func watched(name string) bool {
	return slices.ContainsFunc(onGauges, func(r rule) bool { return r.gauge == name })
}

// gaugeRules are those rules, with the standing that they have in now.
func gaugeRules(now []*rule, own []site.Alert) []*rule {
	webhook := firstWebhook(own)
	var out []*rule
	for _, r := range onGauges {
		r.Webhook, r.state = webhook, overview.AlertOK
		if i := slices.IndexFunc(now, func(o *rule) bool { return o.gauge == r.gauge }); i >= 0 {
			r.state, r.since, r.below = now[i].state, now[i].since, now[i].below
		}
		out = append(out, &r)
	}
	return out
}

// measured is the notice with what the rule goes by; false if nobody has said
// it. n has the site's requests per second; m.mu is held.
func (m *Monitor) measured(r *rule, n notice, now time.Time) (notice, bool) {
	n.Unit = r.unit
	if r.of != nil {
		n.Value, n.Servers = r.of(*m.state.Load(), now), map[string]float64{}
		return n, true
	}
	if r.gauge == "" {
		return n, true
	}
	n.Value, n.Servers = 0, map[string]float64{}
	for server, values := range m.watched {
		if v, ok := values[r.gauge]; ok {
			n.Servers[server] = v
			n.Value = max(n.Value, v)
		}
	}
	return n, len(n.Servers) > 0
}

// observe keeps what a server says of the gauges; m.mu is held.
func (m *Monitor) observe(server string, f overview.Frame) {
	if f.Watched == nil {
		return
	}
	if m.watched == nil {
		m.watched = map[string]map[string]float64{}
	}
	m.watched[server] = f.Watched
}

// ownWatched is what this server's gauges say now.
func (m *Monitor) ownWatched() map[string]float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.watched[m.state.Load().Server]
}
