package monitor

import (
	"fmt"
	"slices"
	"time"

	"trivet/internal/overview"
	"trivet/internal/part"
)

// Now returns the present state of the site, for the console; zero before the first Apply.
func (m *Monitor) Now() overview.Now {
	s := m.state.Load()
	if s == nil {
		return overview.Now{}
	}
	n := overview.Now{
		Site: s.Site.Name, Domain: s.Site.Domain, Server: s.Server, Quorum: s.Quorum,
		Address: s.Site.Address, Holder: s.AddressHolder, Writer: s.Database.Writer,
		Parts: part.Names,
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, member := range s.Members {
		n.Servers = append(n.Servers, overview.Server{
			Name: member.Name, Address: member.Address, Alive: member.Alive, Problems: member.Problems,
			Reachable: time.Since(m.heard[member.Name]) < quietAfter,
			Processes: m.processes[member.Name],
		})
	}
	for _, r := range m.rules {
		n.Alerts = append(n.Alerts, r.show())
	}
	n.Events = slices.Clone(m.events)
	slices.Reverse(n.Events)
	return n
}

// Points returns each server's points that are newer than the Unix second
// after and at most an hour old, oldest first.
func (m *Monitor) Points(after int64) map[string][]overview.Point {
	out := map[string][]overview.Point{}
	if s := m.state.Load(); s != nil {
		for _, member := range s.Members {
			out[member.Name] = m.ring(member.Name).After(after)
		}
	}
	return out
}

// Next returns a channel that is closed when the next second is complete.
func (m *Monitor) Next() <-chan struct{} { return m.published.next() }

// Key returns the key that signs the console's sessions; nil before the first Apply.
func (m *Monitor) Key() []byte {
	if s := m.state.Load(); s != nil {
		return []byte(s.Secrets[part.SecretConsoleKey])
	}
	return nil
}

// changes says in words what an operator wants to see happen between two states.
func changes(before *part.State, now part.State) []string {
	if before == nil {
		return nil
	}
	var out []string
	if before.AddressHolder != now.AddressHolder && now.AddressHolder != "" {
		out = append(out, fmt.Sprintf("The address moved to %s", now.AddressHolder))
	}
	if before.Database.Writer != now.Database.Writer && now.Database.Writer != "" {
		out = append(out, fmt.Sprintf("The database's writer is now %s", now.Database.Writer))
	}
	if before.Quorum != now.Quorum {
		out = append(out, map[bool]string{true: "Changes can be agreed on again", false: "No quorum: changes are refused, serving goes on"}[now.Quorum])
	}
	if before.Release.Hash != now.Release.Hash && now.Release.Hash != "" {
		out = append(out, "Release "+short(now.Release.Hash)+" is live")
	}
	if before.Revision != now.Revision {
		out = append(out, fmt.Sprintf("The site file changed (revision %d)", now.Revision))
	}
	for _, m := range now.Members {
		if old, ok := before.Member(m.Name); ok {
			out = append(out, memberChanges(old, m)...)
		}
	}
	return out
}

func memberChanges(old, now part.Member) []string {
	if old.Alive != now.Alive {
		return []string{now.Name + map[bool]string{true: " is back", false: " is gone"}[now.Alive]}
	}
	var out []string
	for _, name := range part.Names {
		was, is := old.Problems[name], now.Problems[name]
		switch {
		case was == "" && is != "":
			out = append(out, fmt.Sprintf("%s %s: %s", now.Name, name, is))
		case was != "" && is == "":
			out = append(out, fmt.Sprintf("%s %s is well again", now.Name, name))
		}
	}
	return out
}

func short(hash string) string { return hash[:min(len(hash), 12)] }
