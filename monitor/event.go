package monitor

import (
	"slices"
	"time"

	"trivet/internal/overview"
)

// Note keeps an event that only this server knows of, and tells the others.
func (m *Monitor) Note(text string) {
	e := overview.Event{Time: time.Now().Unix(), Text: text}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.share(e)
}

// share keeps an event, for the other monitors too; m.mu is held.
func (m *Monitor) share(e overview.Event) {
	m.keep(e)
	m.mine = newest(append(m.mine, e))
}

// note keeps an event that every monitor sees by itself.
func (m *Monitor) note(t time.Time, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keep(overview.Event{Time: t.Unix(), Text: text})
}

// keep puts events where they belong by their time, each once; m.mu is held.
func (m *Monitor) keep(events ...overview.Event) {
	for _, e := range events {
		if slices.Contains(m.events, e) {
			continue
		}
		i := len(m.events)
		for i > 0 && m.events[i-1].Time > e.Time {
			i--
		}
		m.events = slices.Insert(m.events, i, e)
		m.unsaved = true
	}
	m.events = newest(m.events)
}

// newest cuts off what is too much, without keeping its memory.
func newest(events []overview.Event) []overview.Event {
	if over := len(events) - eventLimit; over > 0 {
		return slices.Clone(events[over:])
	}
	return events
}

// ownEvents are those that only this server knows of, from the second before t.
func (m *Monitor) ownEvents(t int64) []overview.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []overview.Event
	for _, e := range m.mine {
		if e.Time == t-1 {
			out = append(out, e)
		}
	}
	return out
}
