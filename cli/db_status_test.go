package cli

import (
	"bytes"
	"testing"

	"trivet/internal/part"
	"trivet/node"
)

// A node that is not synced, or one that nobody hears, is no health.
func TestDatabaseStatus(t *testing.T) {
	says := func(name, state, problem string) serverStatus {
		return serverStatus{
			Server: name, status: node.Status{Members: []part.Member{{Name: name, Database: part.DatabaseMember{State: state}}}},
			Parts: []node.PartStatus{{Name: part.Database, Problem: problem}},
		}
	}
	f := fleet{Writer: "s1", Servers: []serverStatus{says("s1", part.DatabaseSynced, ""), says("s2", part.DatabaseSynced, ""), says("s3", part.DatabaseSynced, "")}}
	if s := databaseOf(f); !s.Synced {
		t.Errorf("synced = false for %+v", s)
	}
	f.Servers[1] = says("s2", part.DatabaseJoining, "catching up")
	f.Servers[2] = serverStatus{Server: "s3", Error: "it is off"}
	s := databaseOf(f)
	if s.Synced {
		t.Errorf("synced = true for %+v", s)
	}
	var out bytes.Buffer
	if err := s.print(&out, false); err != nil {
		t.Fatal(err)
	}
	compareGolden(t, "db-status.txt", out.Bytes())
}
