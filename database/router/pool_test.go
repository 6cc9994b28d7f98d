package router

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/database/router/digest"
	"trivet/database/router/wire"
	"trivet/internal/part"
)

// A client that leaves gives its connection to the next one, as new.
func TestConnectionsAreKept(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for _, via := range []string{"s1", "s2"} {
		r := s.routers[via]
		first := dial(t, s.app[via], 0)
		thread := first.one("SELECT CONNECTION_ID()")
		for _, q := range []string{"SET @x=1, autocommit=0, sql_mode='ANSI'", "CREATE TEMPORARY TABLE tt (a INT)", "BEGIN", "INSERT INTO t (v) VALUES ('left open')"} {
			first.good(wire.Query, q)
		}
		first.send(0, []byte{byte(wire.Quit)})
		poll(t, "it is kept", patience, func() bool { return r.writes.kept() == 1 })
		second := dial(t, s.app[via], 0)
		if got := second.one("SELECT CONCAT_WS(' ',CONNECTION_ID(),@x,@@autocommit,@@sql_mode='ANSI')"); got != thread+" ON 0" {
			t.Errorf("by %s: got %q, want connection %s", via, got, thread)
		}
		if reply, _ := second.ask(wire.Query, "SELECT * FROM tt"); reply.Code != 1146 {
			t.Errorf("the temporary table: got %d, want 1146", reply.Code)
		}
		if got := second.one("SELECT COUNT(*) FROM t WHERE v='left open'"); got != "0" {
			t.Errorf("%s rows of what was not committed", got)
		}
		third := dial(t, s.app[via], wire.ClientFoundRows)
		if got := third.one("SELECT CONNECTION_ID()"); got == thread {
			t.Error("two clients have the same connection")
		}
		second.send(0, []byte{byte(wire.Quit)})
		poll(t, "it is kept", patience, func() bool { return r.writes.kept() == 1 })
		// Another profile, and another database.
		fourth := dial(t, s.app[via], wire.ClientFoundRows)
		if got := fourth.one("SELECT CONNECTION_ID()"); got == thread {
			t.Error("a client has a connection of another profile")
		}
		fifth, _ := greeted(t, s.app[via])
		if p := fifth.login(fifth.as(appUser, appPassword, "foo_other", 0)); !wire.IsOK(p) {
			t.Fatal(wire.ParseError(p))
		}
		if got := fifth.one("SELECT CONCAT(CONNECTION_ID(),DATABASE())"); got != thread+"foo_other" {
			t.Errorf("got %s, want %s", got, thread+"foo_other")
		}
		fifth.send(0, []byte{byte(wire.Quit)})
		poll(t, "it is kept", patience, func() bool { return r.writes.kept() == 1 })
		r.writes.prune(time.Now().Add(2 * idleLimit))
		if got := r.writes.kept(); got != 0 {
			t.Errorf("after the time for idle ones %d are kept", got)
		}
	}
}

// Kept connections count: there are never more than the limit.
func TestKeptOnesMakeRoom(t *testing.T) {
	s := newSite(t)
	s.limit = 2
	s.elect("s1", "s1")
	r := s.routers["s1"]
	for _, more := range []uint32{0, wire.ClientFoundRows, wire.ClientDeprecateEOF} {
		c := dial(t, s.app["s1"], more)
		c.good(wire.Ping, "")
		c.send(0, []byte{byte(wire.Quit)})
		c.ended()
		poll(t, "it has left", patience, func() bool { return r.writes.used() == 0 })
		if got := r.writes.kept(); got > 2 {
			t.Errorf("%d are kept, want 2 at most", got)
		}
	}
	one, two := dial(t, s.app["s1"], wire.ClientNoSchema), dial(t, s.app["s1"], wire.ClientIgnoreSpace)
	one.good(wire.Ping, "")
	two.good(wire.Ping, "")
	if got := r.writes.kept(); got != 0 {
		t.Errorf("%d are kept beside two in use, want none", got)
	}
}

func TestReads(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	c := dial(t, s.read["s2"], 0)
	where := func(want string) {
		t.Helper()
		if got := c.one("SELECT CONCAT('s',@@server_id,' ',@@wsrep_sync_wait,' ',@@tx_read_only)"); got != want+" 1 ON" {
			t.Errorf("got %q, want %s with 1 and ON", got, want)
		}
	}
	where("s2")
	if reply, _ := c.ask(wire.Query, "INSERT INTO t (v) VALUES (1)"); reply.Code != 1792 {
		t.Errorf("write: got %d, want 1792", reply.Code)
	}
	c.good(wire.ResetConnection, "")
	where("s2")
	s.synced["s2"] = false
	s.tell("s1", "s2")
	where("s1") // the writer's
	c.good(wire.Query, "BEGIN")
	where("s1")
	s.synced["s2"] = true
	s.tell("s2")
	if reply, _ := c.ask(wire.Query, "SELECT 1"); reply.Code != 1213 {
		t.Errorf("in a transaction: got %d, want 1213", reply.Code)
	}
	where("s2")
	s.elect("", "s1", "s2")
	where("s2") // nobody takes writes, and reads go on
}

// A database that is not there any more, though nobody has said so yet, is passed by.
func TestReadsPassByTheDead(t *testing.T) {
	s := start(t, map[string]string{"s1": shared(t, 0).socket, "s2": t.TempDir() + "/nothing.sock"})
	s.elect("s1", "s1", "s2")
	if got := dial(t, s.read["s2"], 0).one("SELECT @@server_id"); got != "1" {
		t.Errorf("answered by %s, want 1", got)
	}
}

// Statements are counted by their form, whatever they were sent by.
func TestDigests(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1")
	r := dial(t, s.app["s1"], 0)
	r.good(wire.Query, "DO 1")
	r.good(wire.Ping, "")
	r.ask(wire.Query, "nonsense")
	reply, _ := r.good(wire.StmtPrepare, "SELECT 2 UNION SELECT 3")
	r.good(wire.StmtExecute, number(reply.Statement)+"\x00\x01\x00\x00\x00")
	r.good(wire.Query, "DO LENGTH('"+strings.Repeat("x", 100<<10)+"')")
	r.good(wire.Ping, "") // a statement is counted after its answer, and before the next request
	v, err := s.routers["s1"].Inspect(t.Context())
	must(t, err)
	got := map[string]digest.Totals{}
	for _, d := range v.(Status).Queries.Digests {
		d.Time, d.Max = 0, 0
		got[d.Text] = d.Totals
	}
	want := map[string]digest.Totals{
		"do ?": {Count: 1}, "nonsense": {Count: 1, Errors: 1}, "select ? union select ?": {Count: 1, Rows: 2}, "do length(…": {Count: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestInspect(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	c := dial(t, s.app["s2"], 0)
	c.good(wire.Query, "DO 1")
	c.good(wire.Ping, "") // a statement is counted after its answer, and before the next request
	got := func(server string) part.RouterStatus {
		v, err := s.routers[server].Inspect(t.Context())
		must(t, err)
		return v.(Status).RouterStatus
	}
	if diff := cmp.Diff(part.RouterStatus{Writer: "s1", Epoch: 1, Reads: "s2", Clients: 1, Statements: 1}, got("s2")); diff != "" {
		t.Errorf("caller (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(part.RouterStatus{Writer: "s1", Epoch: 1, Open: 1, Reads: "s1", Tunnels: 1}, got("s1")); diff != "" {
		t.Errorf("writer (-want +got):\n%s", diff)
	}
}

// A router that ends lets transactions end, and sessions between two requests go.
func TestDrain(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1")
	idle, open := dial(t, s.app["s1"], 0), dial(t, s.app["s1"], 0)
	open.good(wire.Query, "BEGIN")
	s.stop["s1"]()
	idle.ended()
	open.good(wire.Query, "INSERT INTO t (v) VALUES (1)")
	open.good(wire.Query, "COMMIT")
	open.ended()
	must(t, s.ended["s1"]())
}

// A connection for reads is not given to another client: MariaDB would not
// wait on it for what was committed elsewhere.
func TestReadsAreNotKept(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	c := dial(t, s.read["s2"], 0)
	first := c.one("SELECT CONNECTION_ID()")
	c.good(wire.ResetConnection, "")
	if again := c.one("SELECT CONNECTION_ID()"); again == first {
		t.Errorf("after a reset connection %s goes on, want another", first)
	}
	c.send(0, []byte{byte(wire.Quit)})
	c.ended()
	r := s.routers["s2"]
	poll(t, "it has left", patience, func() bool { return r.reads.used() == 0 })
	if got := r.reads.kept(); got != 0 {
		t.Errorf("%d are kept, want none", got)
	}
}
