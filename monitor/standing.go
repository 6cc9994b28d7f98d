package monitor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"trivet/internal/atomicfile"
	"trivet/internal/overview"
)

// standing is the file, beside the series, in which the rules' standing and the
// events survive a restart: what fires is not sent twice, and its end is sent.
const standing = "alerts.json"

// kept is what the file holds.
type kept struct {
	Alerts  []overview.Alert `json:"alerts"`
	Pending []*pending       `json:"pending"` // notices that nobody is known to have delivered
	Events  []overview.Event `json:"events"`  // oldest first
}

// save writes how the rules stand, what has not been delivered, and the events.
func (m *Monitor) save() error {
	m.saving.Lock()
	defer m.saving.Unlock()
	m.mu.Lock()
	k := kept{Pending: m.pending, Events: m.events}
	m.unsaved = false
	for _, r := range m.rules {
		k.Alerts = append(k.Alerts, r.show())
	}
	data, err := json.Marshal(k)
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("encode standing of alerts: %w", err)
	}
	return atomicfile.Write(filepath.Join(m.cfg.SeriesDir, standing), data, 0o600, -1, -1)
}

// remember saves what is new. What it cannot save it tries again with the next change.
func (m *Monitor) remember() {
	m.mu.Lock()
	unsaved := m.unsaved
	m.mu.Unlock()
	if !unsaved {
		return
	}
	if err := m.save(); err != nil {
		m.cfg.Log.Warn("save standing of alerts", "err", err)
	}
}

// recall makes the rules that fired when the monitor ended fire again.
func (m *Monitor) recall() error {
	data, err := os.ReadFile(filepath.Join(m.cfg.SeriesDir, standing))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read standing of alerts: %w", err)
	}
	var saved kept
	if err := json.Unmarshal(data, &saved); err != nil {
		return fmt.Errorf("decode standing of alerts: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rules {
		same := func(a overview.Alert) bool { return a.Name == r.Name && a.Above == r.Above && a.For == r.For.String() }
		if i := slices.IndexFunc(saved.Alerts, same); i >= 0 && saved.Alerts[i].State == overview.AlertFiring {
			r.become(saved.Alerts[i].State, saved.Alerts[i].Since)
		}
	}
	m.pending = saved.Pending
	m.keep(saved.Events...)
	return nil
}
