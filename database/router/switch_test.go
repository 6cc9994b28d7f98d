package router

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"trivet/database/router/wire"
)

// other is the server that does not take the writes.
func (s *site) other() string {
	return map[string]string{"s1": "s2", "s2": "s1"}[s.role.Writer]
}

// Whoever was in a transaction hears that it is gone, and goes on.
func TestTransactionIsRolledBack(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for _, via := range []string{"s1", "s2"} {
		c := s.session(via)
		do(t, c, "BEGIN")
		do(t, c, "INSERT INTO t (v) VALUES ('gone')")
		s.elect(s.other(), "s1", "s2")
		if got := code(t, c, "COMMIT"); got != 1213 {
			t.Errorf("by %s: got %d, want 1213", via, got)
		}
		on(t, c, s.role.Writer)
		do(t, c, "BEGIN")
		do(t, c, "INSERT INTO t (v) VALUES ('there')")
		do(t, c, "COMMIT")

		do(t, c, "BEGIN")
		value(t, c, "SELECT COUNT(*) FROM t")
		s.elect(s.other(), "s1", "s2")
		must(t, c.PingContext(t.Context()))
		if got := code(t, c, "ROLLBACK"); got != 0 {
			t.Errorf("by %s: rollback of what is rolled back: got %d", via, got)
		}
		on(t, c, s.role.Writer)

		do(t, c, "SET autocommit=0")
		value(t, c, "SELECT COUNT(*) FROM t")
		s.elect(s.other(), "s1", "s2")
		if got := code(t, c, "SELECT COUNT(*) FROM t"); got != 1213 {
			t.Errorf("by %s: without autocommit: got %d, want 1213", via, got)
		}
		on(t, c, s.role.Writer)
	}
}

// What no other server can be given ends the connection.
func TestFixedSessionsAreCut(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for _, q := range []string{
		"SET @x=1", "SELECT @x:=1", "SELECT 1 INTO @x", "CREATE TEMPORARY TABLE tt (a INT)", "LOCK TABLES t READ", "SELECT GET_LOCK('a', 1)",
		"HANDLER t OPEN", "PREPARE p FROM 'SELECT 1'", "SET timestamp=5", "DO 1; SET @x=1", "SELECT 1; SELECT @x:=2",
	} {
		for _, via := range []string{"s1", "s2"} {
			r := dial(t, s.app[via], wire.ClientMultiStatement)
			r.good(wire.Query, q)
			if got := s.routers[via].meters.cut.Load(); got != 0 {
				t.Fatalf("%d cut", got)
			}
			s.elect(s.other(), "s1", "s2")
			r.ended()
			s.routers[via].meters.cut.Store(0)
		}
	}
}

// These leave nothing behind that matters.
func TestOrdinarySessionsAreMoved(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for _, q := range []string{
		"INSERT INTO t (v) VALUES ('moved after a write')", "SELECT @@version", "SELECT 'a@b', \"@x\", `id` FROM t LIMIT 1", "/* @x */ DO 1", "SET STATEMENT max_statement_time=9 FOR DO 1",
		"CREATE OR REPLACE DEFINER=`foo-bar`@`localhost` VIEW vw AS SELECT 1", "SET last_insert_id=7", "SET CHARACTER SET utf8mb4",
		"SET character_set_results=NULL", "SET optimizer_switch='mrr=on', lc_time_names='de_DE'", "INSERT INTO t (v) VALUES ('GET_LOCK(1,2) @x')",
		"SET sql_mode='NO_BACKSLASH_ESCAPES'", "SELECT '\\\\'", "SET wait_timeout=100, long_query_time=0.5",
	} {
		c := s.session("s1")
		do(t, c, q)
		want := value(t, c, "SELECT CONCAT_WS(' ',@@max_statement_time,@@character_set_results,@@optimizer_switch,@@lc_time_names,@@sql_mode,@@wait_timeout,@@long_query_time)")
		s.elect(s.other(), "s1", "s2")
		on(t, c, s.role.Writer)
		if got := value(t, c, "SELECT CONCAT_WS(' ',@@max_statement_time,@@character_set_results,@@optimizer_switch,@@lc_time_names,@@sql_mode,@@wait_timeout,@@long_query_time)"); got != want {
			t.Errorf("after %s and a move\n%s, want\n%s", q, got, want)
		}
	}
}

// SET TRANSACTION is for the next transaction, wherever that is.
func TestNextTransactionsLevelIsMoved(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1")
	r := dial(t, s.app["s1"], 0)
	r.good(wire.Query, "SET TRANSACTION READ ONLY")
	s.elect("s2", "s1", "s2")
	s.tell("s1")
	r.good(wire.Query, "BEGIN")
	if reply, _ := r.ask(wire.Query, "INSERT INTO t (v) VALUES (1)"); reply.Code != 1792 {
		t.Errorf("got %d, want 1792: the transaction is read only", reply.Code)
	}
}

func TestPreparedStatementsAreMoved(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for _, via := range []string{"s1", "s2"} {
		c, err := s.open(via, func(c *mysql.Config) { c.InterpolateParams = false }).Conn(t.Context())
		must(t, err)
		many, err := c.PrepareContext(t.Context(), "SELECT CONCAT(?, ' ', ?, ' ', @@server_id)")
		must(t, err)
		none, err := c.PrepareContext(t.Context(), "SELECT @@server_id")
		must(t, err)
		for range 3 {
			var got, alone string
			must(t, many.QueryRow("a", 5).Scan(&got))
			must(t, none.QueryRow().Scan(&alone))
			if want := "a 5 " + s.role.Writer[1:]; got != want || "s"+alone != s.role.Writer {
				t.Errorf("by %s: got %q and %q, want %q", via, got, alone, want)
			}
			s.elect(s.other(), "s1", "s2")
		}
		must(t, many.Close())
		on(t, c, s.role.Writer)
		_ = c.Close()
	}
}

// A client sends the types of parameters once; the server after next has not heard them.
func TestTypesOfParametersAreMoved(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	r := dial(t, s.app["s2"], 0)
	reply, _ := r.good(wire.StmtPrepare, "SELECT ?+1")
	execute := number(reply.Statement) + "\x00\x01\x00\x00\x00" + "\x00" // no cursor, once, no NULL
	r.good(wire.StmtExecute, execute+"\x01\x03\x00"+number(41))
	s.elect("s2", "s1", "s2")
	_, packets := r.good(wire.StmtExecute, execute+"\x00"+number(42))
	if got := packets[3][2]; got != 43 {
		t.Errorf("got %d (%x), want 43", got, packets[3])
	}
	r.good(wire.StmtReset, number(reply.Statement))
	r.send(0, append([]byte{byte(wire.StmtClose)}, number(reply.Statement)...))
	if reply, _ := r.ask(wire.StmtExecute, execute+"\x00"+number(42)); reply.Code != 1243 {
		t.Errorf("closed: got %d, want 1243", reply.Code)
	}
}

// Long data and an open cursor are with one server only.
func TestHalfDoneStatementsAreCut(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	r := dial(t, s.app["s1"], 0)
	reply, _ := r.good(wire.StmtPrepare, "SELECT LENGTH(?)")
	r.send(0, append([]byte{byte(wire.StmtSendLongData)}, number(reply.Statement)+"\x00\x00abc"...))
	_, packets := r.good(wire.StmtExecute, number(reply.Statement)+"\x00\x01\x00\x00\x00\x00\x01\xfc\x00")
	if got := packets[3][2]; got != 3 {
		t.Errorf("long data: got %d, want 3", got)
	}
	s.elect(s.other(), "s1", "s2")
	r.good(wire.Ping, "")
	r.send(0, append([]byte{byte(wire.StmtSendLongData)}, number(reply.Statement)+"\x00\x00abc"...))
	r.good(wire.Ping, "")
	s.elect(s.other(), "s1", "s2")
	r.ended()

	r = dial(t, s.app["s1"], 0)
	reply, _ = r.good(wire.StmtPrepare, "SELECT seq FROM seq_1_to_5")
	r.good(wire.StmtExecute, number(reply.Statement)+"\x01\x01\x00\x00\x00") // a read-only cursor
	r.good(wire.StmtFetch, number(reply.Statement)+number(2))
	if got, _ := r.good(wire.StmtFetch, number(reply.Statement)+number(9)); got.Status&wire.StatusLastRowSent == 0 {
		t.Error("the last row was not said to be the last")
	}
	s.elect(s.other(), "s1", "s2")
	r.good(wire.Ping, "")
	r.good(wire.StmtExecute, number(reply.Statement)+"\x01\x01\x00\x00\x00")
	s.elect(s.other(), "s1", "s2")
	r.ended()
}

// A connection that mariadbd ends while it is idle is missed by nobody.
func TestKilledIdle(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	root := shared(t, 0).root(t)
	for _, via := range []string{"s1", "s2"} {
		c := s.session(via)
		kill := func() {
			_, err := root.Exec("KILL " + value(t, c, "SELECT CONNECTION_ID()"))
			must(t, err)
			poll(t, "the connection ends", 5*time.Second, func() bool { return s.dead(via) })
		}
		kill()
		do(t, c, "INSERT INTO t (v) VALUES ('after')")
		do(t, c, "BEGIN")
		kill()
		if got := code(t, c, "INSERT INTO t (v) VALUES ('after')"); got != 1213 {
			t.Errorf("by %s, in a transaction: got %d, want 1213", via, got)
		}
		on(t, c, "s1")
	}
}

// dead reports whether an upstream of a session has ended.
func (s *site) dead(via string) (dead bool) {
	s.routers[via].sessions.each(func(one *session) {
		one.mu.Lock()
		defer one.mu.Unlock()
		dead = dead || one.up != nil && !one.up.alive()
	})
	return dead
}

// holds reports whether a session has an upstream that lives.
func (s *site) holds(via string) (holds bool) {
	s.routers[via].sessions.each(func(one *session) {
		one.mu.Lock()
		defer one.mu.Unlock()
		holds = holds || one.up != nil && one.up.alive()
	})
	return holds
}

// A switch that is planned lets transactions end, and begins none.
func TestPlannedSwitch(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	open, idle := s.session("s2"), s.session("s2")
	local := s.session("s1")
	do(t, open, "BEGIN")
	do(t, open, "INSERT INTO t (v) VALUES ('planned')")
	on(t, idle, "s1")
	on(t, local, "s1")
	s.role.Next = "s2"
	s.tell("s1", "s2")
	s.opened("one transaction is open", 1)
	done := make(chan string, 2)
	for _, c := range []*sql.Conn{idle, local} {
		go func() { done <- "s" + value(t, c, "SELECT @@server_id") }()
	}
	poll(t, "both wait", patience, func() bool { return s.routers["s1"].waiting()+s.routers["s2"].waiting() == 2 })
	do(t, open, "INSERT INTO t (v) VALUES ('planned')")
	do(t, open, "COMMIT")
	s.opened("none is open", 0)
	s.role.Next = ""
	s.elect("s2", "s1", "s2")
	for range 2 {
		if got := <-done; got != "s2" {
			t.Errorf("answered by %s, want s2", got)
		}
	}
	on(t, open, "s2")
}

// A plan that is given up lets all go on where they were.
func TestPlanGivenUp(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1")
	c := s.session("s1")
	s.role.Next = "s2"
	s.tell("s1")
	done := make(chan error, 1)
	go func() {
		_, err := c.ExecContext(context.Background(), "DO 1")
		done <- err
	}()
	poll(t, "it waits", patience, func() bool { return s.routers["s1"].waiting() == 1 })
	s.role.Next = ""
	s.tell("s1")
	must(t, <-done)
	on(t, c, "s1")
}

// A plan that nobody makes true or gives up does not hold the app for ever.
func TestPlanForgotten(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1")
	c := s.session("s1")
	s.role.Next = "s2"
	s.tell("s1")
	on(t, c, "s1")
	s.tell("s1")
	on(t, c, "s1")
}

// opened waits until the writer's router says how many transactions are open.
func (s *site) opened(what string, want int64) {
	s.t.Helper()
	poll(s.t, fmt.Sprintf("%s: %d", what, want), patience, func() bool { return s.routers[s.role.Writer].transactions() == want })
}
