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

// standing is the file, beside the series, in which the rules' standing
// survives a restart: what fires is not sent twice, and its end is sent.
const standing = "alerts.json"

// save writes how the rules stand.
func (m *Monitor) save() error {
	m.mu.Lock()
	var shown []overview.Alert
	for _, r := range m.rules {
		shown = append(shown, r.show())
	}
	m.mu.Unlock()
	data, err := json.Marshal(shown)
	if err != nil {
		return fmt.Errorf("encode standing of alerts: %w", err)
	}
	return atomicfile.Write(filepath.Join(m.cfg.SeriesDir, standing), data, 0o600, -1, -1)
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
	var saved []overview.Alert
	if err := json.Unmarshal(data, &saved); err != nil {
		return fmt.Errorf("decode standing of alerts: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rules {
		same := func(a overview.Alert) bool { return a.Name == r.Name && a.Above == r.Above && a.For == r.For.String() }
		if i := slices.IndexFunc(saved, same); i >= 0 && saved[i].State == overview.AlertFiring {
			r.become(saved[i].State, saved[i].Since)
		}
	}
	return nil
}
