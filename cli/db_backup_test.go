package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"trivet/database/backup"
	"trivet/internal/part"
)

func TestParseMoment(t *testing.T) {
	for text, want := range map[string]time.Time{
		"":                     {},
		"2026-11-23 14:32:05":  time.Date(2026, 11, 23, 14, 32, 5, 0, time.Local),
		"2026-11-23 14:32":     time.Date(2026, 11, 23, 14, 32, 0, 0, time.Local),
		"2026-11-23T14:32:05Z": time.Date(2026, 11, 23, 14, 32, 5, 0, time.UTC),
	} {
		if got, err := parseMoment(text); err != nil || !got.Equal(want) {
			t.Errorf("%q = %v, %v, want %v", text, got, err, want)
		}
	}
	var usage usageError
	if _, err := parseMoment("yesterday"); !errors.As(err, &usage) {
		t.Errorf("yesterday = %v, want a word on its form", err)
	}
}

// TestBackupsSayWhatIsWrong: a copy that is not whole, an attempt that failed,
// a gap, a place that is away: each is said, and in words.
func TestBackupsSayWhatIsWrong(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	l := backup.Listing{
		Role: part.BackupRole{
			Holder: "s3", Last: part.BackupNote{At: now.Add(-25 * time.Hour)},
			Failed: part.BackupNote{At: now.Add(-time.Hour), Error: "no room"},
			Drill:  part.BackupDrill{At: now.Add(-49 * time.Hour), Error: "table app.m has 1 rows, and not 2"},
		},
		Key: "age1key",
		Backups: []backup.Listed{
			{ID: "20261123-110000-s3", At: now.Add(-25 * time.Hour), GTID: "77-1-9", Size: 3 << 20, Copies: []string{"s1"}, Partial: []string{"s2"}, Verified: now.Add(-50 * time.Hour)},
			{ID: "20261122-110000-s3", Copies: []string{}, Problem: "it was changed after it was signed"},
		},
		Archive: backup.Archived{Pieces: 2, Size: 2048, From: now.Add(-25 * time.Hour), To: now.Add(-time.Minute), GTID: "77-1-12", Gap: "transaction 77-1-13 and what came after it is missing"},
		Away:    map[string]string{"s2": "reach s2: no route to host"},
	}
	var out bytes.Buffer
	if err := printBackups(&env{out: &out}, l, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"s1 (s2 lacks pieces)", "3.0 MiB", "25 h", "2 days ago", "it was changed after it was signed", "(77-1-12, 60 s ago)", "2 pieces, 2 KiB",
		"gap: transaction 77-1-13", "the last attempt, 60 min ago,", "failed: no room", "failed: table app.m has 1 rows, and not 2",
		"s2 does not answer: reach s2", "made by s3; sealed by age1key",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out.String())
		}
	}
}
