package monitor

import (
	"testing"
	"time"

	"trivet/internal/overview"
	"trivet/internal/part"
	"trivet/site"
)

// TestStandard steps the alert on the age of the last verified restore through
// its life: a site with backups of which none was verified, one that was, and
// one that was too long ago.
func TestStandard(t *testing.T) {
	s := site.Default()
	s.Database.Backup.Drill = site.Duration(time.Hour)
	now := time.Unix(1_800_000_000, 0)
	state := part.State{Site: &s}
	rule := func() *rule {
		for _, r := range standard(nil, state) {
			if r.Name == "no verified restore" {
				return r
			}
		}
		t.Fatal("there is no such rule")
		return nil
	}
	tests := []struct {
		name string
		role part.BackupRole
		want string
	}{
		{"no backup yet", part.BackupRole{}, overview.AlertOK},
		{"never verified, lately begun", part.BackupRole{Since: now.Add(-time.Hour)}, overview.AlertOK},
		{"never verified", part.BackupRole{Since: now.Add(-3 * time.Hour)}, overview.AlertFiring},
		{"verified", part.BackupRole{Since: now.Add(-30 * time.Hour), Verified: part.BackupDrill{At: now.Add(-time.Hour)}}, overview.AlertOK},
		{"verified long ago", part.BackupRole{Since: now.Add(-30 * time.Hour), Verified: part.BackupDrill{At: now.Add(-3 * time.Hour)}}, overview.AlertFiring},
	}
	for _, tt := range tests {
		state.Backup = tt.role
		r := rule()
		for i := range int64(61) {
			at := now.Add(time.Duration(i) * time.Second)
			r.step(at.Unix(), r.of(state, at))
		}
		if r.state != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, r.state, tt.want)
		}
	}
	fired := rule()
	fired.become(overview.AlertFiring, 1)
	fireds := append(standard(nil, state)[:0], fired)
	for _, r := range standard(fireds, state) {
		if r.Name == fired.Name && r.state != overview.AlertFiring {
			t.Errorf("after another state: %s, want that it still fires", r.state)
		}
	}
	s.Database.Backup.Every = 0
	if got := standard(nil, state); len(got) > 0 {
		t.Errorf("rules of a site without backups: %d", len(got))
	}
}
