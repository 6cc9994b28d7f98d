package cli

import (
	"bytes"
	"strings"
	"testing"

	"trivet/internal/part"
)

func dbSays(name, state, problem string, seqno int64) dbNode {
	return dbNode{Server: name, quorum: true, Node: &part.DatabaseStatus{
		State: state, Problem: problem, Writer: "s1", Epoch: 7, UUID: "u", Seqno: seqno, Free: 3 << 30,
	}}
}

func printed(t *testing.T, s dbStatus) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := s.print(&out, false); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A node that is not synced, or one that nobody hears, is no health.
func TestDatabaseStatus(t *testing.T) {
	nodes := []dbNode{dbSays("s1", part.DatabaseSynced, "", 90), dbSays("s2", part.DatabaseSynced, "", 90), dbSays("s3", part.DatabaseSynced, "", 88)}
	s := databaseOf(nodes)
	if !s.Synced || s.Writer != "s1" || s.Epoch != 7 {
		t.Errorf("all synced: got %+v", s)
	}
	compareGolden(t, "db-status.txt", printed(t, s))

	nodes[1] = dbSays("s2", part.DatabaseJoining, "joining", 0)
	nodes[1].Node.UUID, nodes[1].Node.Copy = "", &part.DatabaseCopy{Bytes: 30 << 20, Total: 120 << 20, Percent: 25}
	nodes[2] = dbNode{Server: "s3", Error: "it is off"}
	s = databaseOf(nodes)
	if s.Synced {
		t.Errorf("synced = true for %+v", s)
	}
	compareGolden(t, "db-status-copy.txt", printed(t, s))
}

// While nothing runs it says what is waited for, and what each choice would lose.
func TestDatabaseStatusChoices(t *testing.T) {
	s := databaseOf(waitingNodes())
	if s.Synced {
		t.Errorf("synced = true for %+v", s)
	}
	compareGolden(t, "db-status-choices.txt", printed(t, s))
}

func waitingNodes() []dbNode {
	nodes := []dbNode{
		dbSays("s1", part.DatabaseDown, "down: waiting for s3, which may hold newer data", 90),
		dbSays("s2", part.DatabaseDown, "down: waiting for s3, which may hold newer data", 80),
		{Server: "s3", Error: "it is off"},
	}
	for _, n := range nodes[:2] {
		n.Node.Choices = []part.DatabaseChoice{
			{Server: "s1", Seqno: 90, Loses: []string{"what s3 alone may hold: it does not answer"}, Lose: []string{"s3"}},
			{Server: "s2", Seqno: 80, Loses: []string{"10 transactions that s1 holds", "what s3 alone may hold: it does not answer"}, Lose: []string{"s1", "s3"}},
		}
	}
	return nodes
}

func TestForceBootstrapAsks(t *testing.T) {
	s := databaseOf(waitingNodes())
	c, err := s.choice("s2")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(typed, yes string) (string, error) {
		var out bytes.Buffer
		err := s.consent(&env{in: strings.NewReader(typed), out: &out}, c, yes)
		return out.String(), err
	}
	out, err := ask("start from s2 and lose s1 s3\n", "")
	if err != nil {
		t.Errorf("the sentence: %v", err)
	}
	compareGolden(t, "db-force.txt", []byte(out))
	for _, typed := range []string{"", "y\n", "start from s2 and lose s1\n", "start from s2\n"} {
		if _, err := ask(typed, ""); err == nil {
			t.Errorf("%q was taken for the sentence", typed)
		}
	}
	if _, err := ask("", "s1"); err == nil || !strings.Contains(err.Error(), "does not name s3") {
		t.Errorf("one of two named: got %v", err)
	}
	for _, yes := range []string{"s1 s3", "s3,s1"} {
		if out, err := ask("", yes); err != nil || out != "" {
			t.Errorf("%q: got %q, %v", yes, out, err)
		}
	}
}

func TestForceBootstrapRefuses(t *testing.T) {
	s := databaseOf(waitingNodes())
	if _, err := s.choice("s3"); err == nil || !strings.Contains(err.Error(), "not known to hold any data") {
		t.Errorf("a server that says nothing: %v", err)
	}
	synced := waitingNodes()
	synced[1].Node.State = part.DatabaseSynced
	if _, err := databaseOf(synced).choice("s1"); err == nil || !strings.Contains(err.Error(), "s2 is synced") {
		t.Errorf("a node is synced: %v", err)
	}
	alone := waitingNodes()
	alone[0].quorum, alone[1].quorum = false, false
	s = databaseOf(alone)
	c, err := s.choice("s1")
	if want := "s3 are off for good, start from s1"; err != nil || s.sentence(c) != want {
		t.Errorf("no quorum: got %q, %v, want %q", s.sentence(c), err, want)
	}
}
