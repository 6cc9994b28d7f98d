package node

import (
	"strings"
	"testing"

	"trivet/internal/part"
)

func synced(m *part.Member) { m.Database.State = part.DatabaseSynced }

// databases are three servers whose databases are synced, with the changes given by name.
func databases(changes map[string]func(*part.Member)) []part.Member {
	members := fleet(nil)
	for i := range members {
		synced(&members[i])
		if f := changes[members[i].Name]; f != nil {
			f(&members[i])
		}
	}
	return members
}

func joining(m *part.Member) { m.Database.State = part.DatabaseJoining }

func TestNextWriter(t *testing.T) {
	type changes = map[string]func(*part.Member)
	for name, c := range map[string]struct {
		writer, to string
		members    changes
		want, err  string
	}{
		"any":                     {writer: "s1", want: "s2"},
		"the one named":           {writer: "s1", to: "s3", want: "s3"},
		"not a drained one":       {writer: "s1", members: changes{"s2": drained}, want: "s3"},
		"a drained one, by name":  {writer: "s1", to: "s2", members: changes{"s2": drained}, want: "s2"},
		"one that joins":          {writer: "s1", to: "s2", members: changes{"s2": joining}, err: "s2 is not synced"},
		"the writer itself":       {writer: "s1", to: "s1", err: "s1 takes the writes already"},
		"nobody else":             {writer: "s1", members: changes{"s2": joining, "s3": gone}, err: "s1 takes the writes already, s2 is not synced, s3 is not there"},
		"no writer":               {err: "no server takes the writes now"},
		"a server that is no one": {writer: "s1", to: "s9", err: `the site has no server "s9"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := part.State{Quorum: true, Members: databases(c.members), Database: part.DatabaseRole{Writer: c.writer}}
			got, err := nextWriter(s, c.to)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
				t.Errorf("got %q, %v, want %q, %s", got, err, c.want, c.err)
			}
		})
	}
	if _, err := nextWriter(part.State{Members: databases(nil), Database: part.DatabaseRole{Writer: "s1"}}, ""); err == nil {
		t.Error("without quorum: no error")
	}
}

// One mariadbd at a time, and never the one that takes the writes.
func TestRestartable(t *testing.T) {
	type changes = map[string]func(*part.Member)
	for name, c := range map[string]struct {
		role    part.DatabaseRole
		members changes
		err     string
	}{
		"another writes":          {role: part.DatabaseRole{Writer: "s1"}},
		"it writes":               {role: part.DatabaseRole{Writer: "s2"}, err: "takes the writes"},
		"it is about to":          {role: part.DatabaseRole{Writer: "s1", Next: "s2"}, err: "takes the writes"},
		"another joins":           {role: part.DatabaseRole{Writer: "s1"}, members: changes{"s3": joining}, err: "s3 is not synced"},
		"another is gone":         {role: part.DatabaseRole{Writer: "s1"}, members: changes{"s1": gone}, err: "s1 is not synced"},
		"it is not synced itself": {role: part.DatabaseRole{Writer: "s1"}, members: changes{"s2": joining}},
	} {
		t.Run(name, func(t *testing.T) {
			err := restartable(part.State{Server: "s2", Quorum: true, Members: databases(c.members), Database: c.role})
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %q", err, c.err)
			}
		})
	}
}
