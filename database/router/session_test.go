package router

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"trivet/database/router/wire"
)

// session is one of the app by way of a server's router.
func (s *site) session(via string) *sql.Conn {
	s.t.Helper()
	c, err := s.open(via, nil).Conn(s.t.Context())
	must(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *site) open(via string, change func(*mysql.Config)) *sql.DB {
	s.t.Helper()
	return openSQL(s.t, "tcp", s.app[via], appUser, appPassword, appDatabase, change)
}

func do(t testing.TB, c *sql.Conn, q string, args ...any) {
	t.Helper()
	if _, err := c.ExecContext(context.Background(), q, args...); err != nil {
		t.Fatalf("%.80s: %v", q, err)
	}
}

func value(t testing.TB, c *sql.Conn, q string, args ...any) string {
	t.Helper()
	var out sql.NullString
	if err := c.QueryRowContext(context.Background(), q, args...).Scan(&out); err != nil {
		t.Fatalf("%.80s: %v", q, err)
	}
	return out.String
}

// on checks which server's mariadbd answers.
func on(t testing.TB, c *sql.Conn, want string) {
	t.Helper()
	if got := "s" + value(t, c, "SELECT @@server_id"); got != want {
		t.Errorf("answered by %s, want %s", got, want)
	}
}

// code is MariaDB's number of the error of a statement; 0: none.
func code(t testing.TB, c *sql.Conn, q string) uint16 {
	t.Helper()
	_, err := c.ExecContext(context.Background(), q)
	if err == nil {
		return 0
	}
	var e *mysql.MySQLError
	if !errors.As(err, &e) {
		t.Fatalf("%s: %v, want an error of the server's form", q, err)
	}
	return e.Number
}

func TestStatements(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for _, via := range []string{"s1", "s2"} {
		c := s.session(via)
		on(t, c, "s1")
		do(t, c, "INSERT INTO t (v) VALUES (?)", "hello")
		if got := value(t, c, "SELECT v FROM t WHERE id=LAST_INSERT_ID()"); got != "hello" {
			t.Errorf("got %q", got)
		}
		if got := code(t, c, "SELECT nonsense"); got != 1054 {
			t.Errorf("got %d, want 1054", got)
		}
		for _, n := range []int{1000, answerChunk - 5, answerChunk, 200 << 10, 17 << 20, 1<<24 - 1 - 30} {
			blob := bytes.Repeat([]byte{'x'}, n)
			do(t, c, "INSERT INTO t (v) VALUES (?)", blob)
			if got := value(t, c, "SELECT v FROM t WHERE id=LAST_INSERT_ID()"); got != string(blob) {
				t.Errorf("%d bytes: got %d", n, len(got))
			}
		}
	}
}

// state is what a session looks like.
const state = "SELECT CONCAT_WS(' ',DATABASE(),@@character_set_client,@@collation_connection,@@autocommit,@@sql_mode,@@time_zone,@@max_statement_time,@@tx_isolation,@@group_concat_max_len,@@foreign_key_checks)"

func TestMovesWithItsState(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for _, via := range []string{"s1", "s2"} {
		c := s.session(via)
		do(t, c, "SET NAMES utf8mb4 COLLATE utf8mb4_bin")
		do(t, c, "SET sql_mode='ANSI_QUOTES,NO_ZERO_DATE', time_zone='+03:00'")
		do(t, c, "SET SESSION max_statement_time=7, group_concat_max_len=4321, foreign_key_checks=0")
		do(t, c, "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE")
		do(t, c, "USE foo_other")
		do(t, c, "SET autocommit=0")
		want := value(t, c, state)
		do(t, c, "COMMIT")
		next := map[string]string{"s1": "s2", "s2": "s1"}[s.role.Writer]
		s.elect(next, "s1", "s2")
		if got := value(t, c, state); got != want || !strings.HasPrefix(got, "foo_other utf8mb4 utf8mb4_bin OFF ") {
			t.Errorf("after the move\n%s, want\n%s", got, want)
		}
		on(t, c, next)
	}
}

// busy is how many sessions by way of a server have a request under way.
func (s *site) busy(via string) int {
	n := 0
	s.routers[via].sessions.each(func(one *session) {
		one.mu.Lock()
		defer one.mu.Unlock()
		if one.busy {
			n++
		}
	})
	return n
}

// A client knows its connection by the number that it was greeted with.
func TestKill(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for _, via := range []string{"s1", "s2"} {
		victim, killer := dial(t, s.app[via], 0), dial(t, s.app[via], 0)
		victim.send(0, append([]byte{byte(wire.Query)}, "SELECT SLEEP(60)"...))
		poll(t, "it is under way", patience, func() bool {
			return killer.one("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'") == "1"
		})
		killer.good(wire.Query, fmt.Sprintf("kill query %d", victim.greeting.Thread))
		var packets int
		reply := wire.Reply{}
		for reply.Expect(wire.Query, victim.capabilities); !reply.Ended(); packets++ {
			p, _ := victim.packet()
			must(t, reply.Next(len(p), p))
		}
		if packets > 5 {
			t.Errorf("%d packets", packets)
		}
		victim.good(wire.Ping, "")
		if reply, _ := killer.ask(wire.Query, "KILL 4000000000"); reply.Code != 1094 {
			t.Errorf("an unknown connection: got %d, want 1094", reply.Code)
		}
		killer.good(wire.ProcessKill, number(victim.greeting.Thread))
		victim.ended()
		killer.good(wire.Query, "DO 1")
	}
}
