package database

import (
	"slices"
	"testing"
	"time"

	"trivet/internal/part"
)

// A node that ended is put out of the group at once; but none makes itself the
// last one while another may hold more, as one does that stood still while the
// two others wrote on, and ended.
func TestEnded(t *testing.T) {
	const down, synced = part.DatabaseDown, part.DatabaseSynced
	tests := []struct {
		name   string
		others []part.Member // of s1, whose position is 9
		group  []string
		want   []string
	}{
		{"nobody ended", []part.Member{member("s2", synced, historyA, 9), member("s3", synced, historyA, 9)}, []string{"s1", "s2", "s3"}, nil},
		{"one of three has just ended", []part.Member{member("s2", down, "", -1), member("s3", synced, historyA, 9)}, []string{"s1", "s2", "s3"}, []string{"s2"}},
		{"one of three ended and holds more", []part.Member{member("s2", down, historyA, 12), member("s3", synced, historyA, 9)}, []string{"s1", "s2", "s3"}, []string{"s2"}},
		{"two have just ended", []part.Member{member("s2", down, "", -1), member("s3", down, "", -1)}, []string{"s1", "s2", "s3"}, []string{"s2"}},
		{"two ended, one holds more", []part.Member{member("s2", down, historyA, 9), member("s3", down, historyA, 12)}, []string{"s1", "s2", "s3"}, []string{"s2"}},
		{"two ended and hold no more", []part.Member{member("s2", down, historyA, 9), member("s3", down, historyA, 8)}, []string{"s1", "s2", "s3"}, []string{"s2", "s3"}},
		{"the last other has just ended", []part.Member{member("s2", down, historyA, 7), member("s3", down, "", -1)}, []string{"s1", "s3"}, nil},
		{"the last other ended and holds more", []part.Member{member("s2", down, historyA, 7), member("s3", down, historyA, 10)}, []string{"s1", "s3"}, nil},
		{"the last other ended and holds no more", []part.Member{member("s2", down, historyA, 7), member("s3", down, historyA, 9)}, []string{"s1", "s3"}, []string{"s3"}},
		{"the last other ended, of another history", []part.Member{member("s2", down, historyA, 7), member("s3", down, historyB, 3)}, []string{"s1", "s3"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := health{answers: true, ready: true, connected: true, inPrimary: true, state: stateSynced, uuid: historyA, seqno: 9, names: tt.group}
			for i := range tt.others {
				tt.others[i].Database.Gcomm = tt.others[i].Name
			}
			v := view{self: "s1", quorum: true, running: true, health: h, members: append([]part.Member{member("s1", synced, historyA, 9)}, tt.others...)}
			var got []string
			for _, m := range v.ended() {
				got = append(got, m.Name)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// One that ended is evicted, and would stop the group if it came back before
// that has forgotten it; so also if a check found it dying before its end was known.
func TestLeave(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		name    string
		grouped time.Time
		want    time.Time
	}{
		{"never in a group", time.Time{}, time.Time{}},
		{"in the group at the last check but one", now.Add(-300 * time.Millisecond), now.Add(absence)},
		{"cut off for long", now.Add(-time.Minute), time.Time{}},
	} {
		l := loop{grouped: tt.grouped}
		l.leave(now)
		if !l.rejoin.Equal(tt.want) {
			t.Errorf("%s: no start before %v, want %v", tt.name, l.rejoin, tt.want)
		}
	}
}
