package database

import (
	"errors"
	"strings"
	"testing"

	"trivet/internal/part"
)

func TestChoices(t *testing.T) {
	v := view{
		self: "s1", quorum: true, role: past(), folder: holds(historyA, 110), mark: mark{"two", 4},
		record: part.DatabaseRecord{UUID: historyA, Committed: 115},
		members: []part.Member{
			marked("s1", "two", 110), marked("s2", "two", 120), gonePower("s3"),
		},
	}
	got := map[string]string{}
	for _, c := range choices(v) {
		got[c.Server] = strings.Join(c.Loses, "; ") + " | " + strings.Join(c.Lose, ", ")
	}
	want := map[string]string{
		"s1": "5 transactions at least that had been committed; 10 transactions that s2 holds; what s3 alone may hold: it does not answer | s2, s3",
		"s2": "what s3 alone may hold: it does not answer | s3",
	}
	for _, name := range []string{"s1", "s2", "s3"} {
		if got[name] != want[name] {
			t.Errorf("%s: got %q, want %q", name, got[name], want[name])
		}
	}

	v.members[2] = member("s3", part.DatabaseDown, historyB, 7)
	if c := choices(v)[0]; !strings.Contains(strings.Join(c.Loses, ";"), "all that s3 holds: another history, up to 7") {
		t.Errorf("another history: got %q", c.Loses)
	}
	v.members[2] = old(marked("s3", "two", 500))
	if c := choices(v)[2]; !strings.Contains(c.Loses[0], "it is an old copy") {
		t.Errorf("an old copy: got %q", c.Loses)
	}
	v.members[2] = member("s3", part.DatabaseSynced, historyA, 0)
	if cs := choices(v); cs != nil {
		t.Errorf("a node is synced: got %+v, want no choice", cs)
	}
}

func TestChooseAmong(t *testing.T) {
	cs := []part.DatabaseChoice{{Server: "s1", Lose: []string{"s2", "s3"}}}
	for _, c := range []struct {
		cs     []part.DatabaseChoice
		server string
		lose   []string
		ok     bool
	}{
		{cs, "s1", []string{"s3", "s2"}, true},
		{cs, "s1", []string{"s3"}, false},
		{cs, "s1", nil, false},
		{cs, "s2", []string{"s2", "s3"}, false},
		{nil, "s1", []string{"s2", "s3"}, false},
	} {
		f, err := chooseAmong(c.cs, c.server, c.lose)
		if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrNoChoice) {
			t.Errorf("%s for %v: got %v", c.server, c.lose, err)
		}
		if c.ok && (f.Server != "s1" || strings.Join(f.Lose, ", ") != "s2, s3") {
			t.Errorf("got %+v", f)
		}
	}
}
