package backup

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	history = "11111111-2222-3333-4444-555555555555"
	aChain  = history + ".20261120-000000"
)

func piece(prev, last uint64, from, to int64) logPiece {
	return logPiece{chain: aChain, prev: prev, last: last, from: from, to: to}
}

func TestLogName(t *testing.T) {
	p := piece(41, 4711, 1_800_000_000, 1_800_000_004)
	got, ok := parseLogName(p.name())
	if !ok || got != p || !objectForm.MatchString(p.name()) {
		t.Errorf("parse of %s = %+v, %v", p.name(), got, ok)
	}
	for _, bad := range []string{"log/x/1-2-3-4", p.name() + "-1", piece(5, 5, 0, 0).name()} {
		if _, ok := parseLogName(bad); ok {
			t.Errorf("%s is taken for a piece", bad)
		}
	}
}

// TestChain finds the way through the archive, and names what is missing on it.
func TestChain(t *testing.T) {
	a, b, c := piece(10, 20, 100, 110), piece(20, 30, 111, 120), piece(30, 40, 130, 140)
	over := piece(15, 27, 105, 118) // two servers archived at once
	tests := []struct {
		name   string
		pieces []logPiece
		at     uint64
		bound  bound
		want   []logPiece
		gap    GapError
	}{
		{name: "all", pieces: []logPiece{a, b, c}, at: 10, want: []logPiece{a, b, c}},
		{name: "from amid a piece", pieces: []logPiece{a, b, c}, at: 25, want: []logPiece{b, c}},
		{name: "up to a transaction", pieces: []logPiece{a, b, c}, at: 10, bound: bound{seq: 30}, want: []logPiece{a, b}},
		{name: "up to a time", pieces: []logPiece{a, b, c}, at: 10, bound: bound{time: 115}, want: []logPiece{a, b}},
		{name: "up to a time when nothing was written", pieces: []logPiece{a, b, c}, at: 10, bound: bound{time: 125}, want: []logPiece{a, b, c}},
		{name: "overlapping", pieces: []logPiece{a, over, b, c}, at: 10, want: []logPiece{a, b, c}},
		{name: "saved by an overlap", pieces: []logPiece{a, over, piece(27, 30, 119, 120), c}, at: 10, want: []logPiece{a, over, piece(27, 30, 119, 120), c}},
		{name: "nothing needed", pieces: nil, at: 10},
		{name: "one missing", pieces: []logPiece{a, c}, at: 10, gap: GapError{Missing: "77-1-21", Next: "77-1-31"}},
		{name: "one missing after the time", pieces: []logPiece{a, c}, at: 10, bound: bound{time: 105}, want: []logPiece{a}},
		{name: "the first missing", pieces: []logPiece{b, c}, at: 10, gap: GapError{Missing: "77-1-11", Next: "77-1-21"}},
		{name: "the last missing", pieces: []logPiece{a, b}, at: 10, bound: bound{seq: 35}, gap: GapError{Missing: "77-1-31"}},
	}
	for _, tt := range tests {
		got, err := chain(tt.pieces, tt.at, tt.bound)
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(logPiece{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if tt.gap == (GapError{}) {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		tt.gap.Where = "archive of the binary log"
		if gap := as[GapError](t, err); gap != tt.gap {
			t.Errorf("%s: %+v, want %+v", tt.name, gap, tt.gap)
		}
	}
}

// TestExpired keeps what can still be restored, the last verified backup, and what it cannot judge.
func TestExpired(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	dir := folder{"s2", t.TempDir()}
	k := newKey(t)
	var all []Manifest
	add := func(name string) {
		t.Helper()
		if err := dir.put(t.Context(), bytesObject(name, []byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	for i := 1; i <= 4; i++ {
		at := now.Add(time.Duration(i-5) * 24 * time.Hour)
		m := Manifest{ID: at.Format(idTime) + "-s2", UUID: history, Log: aChain, GTID: position(uint64(10 * i)), At: at, Pieces: []Piece{{1, digest([]byte("x"))}}}
		data, err := m.encode(k)
		if err != nil {
			t.Fatal(err)
		}
		if err := dir.put(t.Context(), bytesObject(manifestName(m.ID), data)); err != nil {
			t.Fatal(err)
		}
		add(pieceName(m.ID, 0))
		all = append(all, m)
	}
	for i := range uint64(5) {
		add(piece(10*i, 10*i+10, 0, 0).name())
	}
	add(logPiece{chain: history + ".20261101-000000", prev: 1, last: 9}.name())
	unfinished, fresh := "20261101-000000-s1", now.Add(-time.Hour).Format(idTime)+"-s1"
	add(pieceName(unfinished, 0))
	add(pieceName(fresh, 0))

	look := func() catalog { return look(t.Context(), []store{dir}, "") }
	check := func(what, verified string, want ...string) {
		t.Helper()
		readable, _ := look().manifests(t.Context(), t.TempDir(), k)
		got := expired(look(), readable, 2, verified, now)
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	other := logPiece{chain: history + ".20261101-000000", prev: 1, last: 9}.name()
	files := func(m Manifest) []string { return []string{manifestName(m.ID), pieceName(m.ID, 0)} }
	logs := func(upTo uint64) (out []string) {
		for i := range upTo {
			out = append(out, piece(10*i, 10*i+10, 0, 0).name())
		}
		return out
	}
	check("two are kept", "", slices.Concat(files(all[0]), files(all[1]), logs(3), []string{other, pieceName(unfinished, 0)})...)
	check("and the verified one", all[0].ID, slices.Concat(files(all[1]), logs(1), []string{other, pieceName(unfinished, 0)})...)
	// A manifest that cannot be read may be of the only good backup: its log stays.
	if err := dir.put(t.Context(), bytesObject(manifestName("20261102-000000-s1"), []byte("?"))); err != nil {
		t.Fatal(err)
	}
	check("one that cannot be read", "", slices.Concat(files(all[0]), files(all[1]), []string{pieceName(unfinished, 0)})...)
}

// TestManifest: no change of a manifest goes unnoticed.
func TestManifest(t *testing.T) {
	k := newKey(t)
	m := Manifest{ID: "20261123-143205-s3", Server: "s3", UUID: history, GTID: "77-1-9", Size: 5, Pieces: []Piece{{5, digest([]byte("piece"))}}}
	data, err := m.encode(k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeManifest(m.ID, data, k); err != nil {
		t.Fatal(err)
	}
	for i := range data {
		for bit := range 8 {
			bad := slices.Clone(data)
			bad[i] ^= 1 << bit
			if got, err := decodeManifest(m.ID, bad, k); err == nil && fmt.Sprint(got.Pieces, got.GTID, got.UUID) != fmt.Sprint(m.Pieces, m.GTID, m.UUID) {
				t.Fatalf("bit %d of byte %d (%q): taken as %+v", bit, i, data[i], got)
			}
		}
	}
	if _, err := decodeManifest("20261123-143206-s3", data, k); err == nil {
		t.Error("another backup's manifest is taken")
	}
	_, err = decodeManifest(m.ID, data, newKey(t))
	if wrong := as[WrongKeyError](t, err); wrong.Sealed != k.recipient {
		t.Errorf("wrong key = %+v", wrong)
	}
}

func TestDue(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const day = 24 * time.Hour
	tests := []struct {
		name  string
		since time.Time
		gap   bool
		role  func(*roleOf)
		want  string
	}{
		{"just begun", ago(time.Minute), false, func(*roleOf) {}, ""},
		{"the first", ago(time.Hour), false, func(*roleOf) {}, dueBackup},
		{"made lately", ago(day), false, func(r *roleOf) { r.last, r.drill = ago(time.Hour/2), ago(day) }, ""},
		{"a day later", ago(day), false, func(r *roleOf) { r.last, r.drill = ago(day), ago(day) }, dueBackup},
		{"failed a moment ago", ago(day), false, func(r *roleOf) { r.last, r.failed, r.drill = ago(2*day), ago(time.Minute), ago(day) }, ""},
		{"failed a while ago", ago(day), false, func(r *roleOf) { r.last, r.failed, r.drill = ago(2*day), ago(time.Hour), ago(day) }, dueBackup},
		{"the log has a gap", ago(day), true, func(r *roleOf) { r.last, r.drill = ago(time.Minute), ago(day) }, dueBackup},
		{"another history", ago(day), false, func(r *roleOf) { r.last, r.uuid = ago(time.Minute), "other" }, dueBackup},
		{"never rehearsed", ago(day), false, func(r *roleOf) { r.last = ago(2 * time.Hour) }, dueDrill},
		{"rehearsed a week ago", ago(day), false, func(r *roleOf) { r.last, r.drill = ago(time.Hour), ago(7*day) }, dueDrill},
		{"rehearsed in vain", ago(day), false, func(r *roleOf) { r.last, r.drill, r.wrong = ago(time.Hour), ago(2*time.Hour), "?" }, dueDrill},
		{"a clock that was wrong", ago(day), false, func(r *roleOf) { r.last, r.drill = now.Add(300*day), ago(day) }, dueBackup},
	}
	for _, tt := range tests {
		r := &roleOf{uuid: history}
		tt.role(r)
		if got := due(r.state(), tt.since, tt.gap, 10*time.Minute, now); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
