package router

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"trivet/database/router/wire"
)

// forms are the two ways in which results end.
var forms = map[string]uint32{"eof": 0, "no eof": wire.ClientDeprecateEOF}

func TestCommands(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for name, form := range forms {
		for _, via := range []string{"s1", "s2"} {
			t.Run(name+" by "+via, func(t *testing.T) { commands(t, dial(t, s.app[via], form|wire.ClientMultiStatement)) })
		}
	}
}

func commands(t *testing.T, r *raw) {
	r.good(wire.Ping, "")
	r.good(wire.InitDB, "foo_other")
	if got := r.one("SELECT DATABASE()"); got != "foo_other" {
		t.Errorf("database: got %q", got)
	}
	r.good(wire.InitDB, appDatabase)
	if _, p := r.good(wire.FieldList, "t\x00"); len(p) != 3 {
		t.Errorf("field list: got %d packets, want two fields and an end", len(p))
	}
	if _, p := r.good(wire.Statistics, ""); !strings.HasPrefix(string(p[0]), "Uptime") {
		t.Errorf("statistics: got %q", p[0])
	}
	r.good(wire.ProcessInfo, "")
	r.good(wire.SetOption, "\x01\x00")
	if reply, _ := r.ask(wire.Query, "DO 1; DO 2"); reply.Code != 1064 {
		t.Errorf("two statements where one is allowed: got %d, want 1064", reply.Code)
	}
	r.good(wire.SetOption, "\x00\x00")
	if reply, p := r.good(wire.Query, "SELECT 1; DO 2; SELECT 3, 4; INSERT INTO t (v) VALUES (5)"); reply.Status&wire.StatusMoreResults != 0 {
		t.Errorf("several results: %d packets, and more", len(p))
	}
	r.good(wire.Query, "CREATE OR REPLACE PROCEDURE p() BEGIN SELECT 1; SELECT 2, 3; DO 4; END")
	if _, p := r.good(wire.Query, "CALL p()"); !wire.IsOK(p[len(p)-1]) {
		t.Errorf("procedure: ends with %x", p[len(p)-1])
	}
	if reply, _ := r.ask(wire.Query, "LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE t (v)"); reply.Code != 4166 && reply.Code != 1148 {
		t.Errorf("local file: got %d, want that it is refused", reply.Code)
	}
	for _, c := range []wire.Command{0x00, 0x05, 0x06, 0x0b, 0x0f, 0x10, 0x12, 0x13, 0x14, 0x15, 0x1d, 0x1e, 0xfa, 0xfe} {
		if reply, _ := r.ask(c, "x"); reply.Code != 1235 {
			t.Errorf("command %#x: got %d, want 1235", c, reply.Code)
		}
	}
	if reply, _ := r.ask(wire.StmtExecute, number(99)+"\x00\x01\x00\x00\x00"); reply.Code != 1243 {
		t.Errorf("unknown statement: got %d, want 1243", reply.Code)
	}
	r.good(wire.Ping, "")
	r.send(0, []byte{byte(wire.Quit)})
	r.ended()
}

func TestNewAgain(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for _, via := range []string{"s1", "s2"} {
		r := dial(t, s.app[via], 0)
		spoil := func() {
			r.good(wire.Query, "SET @x=1, sql_mode='ANSI', autocommit=0")
			r.good(wire.Query, "CREATE TEMPORARY TABLE tt (a INT)")
			r.good(wire.Query, "INSERT INTO t (v) VALUES ('never committed')")
		}
		fresh := func(how, database string) {
			t.Helper()
			if got := r.one("SELECT CONCAT_WS(' ',DATABASE(),@x,@@autocommit,@@sql_mode='ANSI')"); got != strings.TrimSpace(database+" ON 0") {
				t.Errorf("after %s: %q", how, got)
			}
			if reply, _ := r.ask(wire.Query, "SELECT * FROM foo_bar.tt"); reply.Code != 1146 {
				t.Errorf("after %s: the temporary table: got %d, want 1146", how, reply.Code)
			}
		}
		spoil()
		r.good(wire.ResetConnection, "")
		fresh("reset", appDatabase)
		spoil()
		r.changeUser(appUser, appPassword, "foo_other")
		fresh("change of user", "foo_other")
		r.changeUser(appUser, appPassword, "")
		fresh("change of user without a database", "")
		if e := wire.ParseError(r.changes("root", appPassword, "")); e == nil || e.Code != 1045 {
			t.Errorf("change to another user: got %v, want 1045", e)
		}
		r.ended()
	}
}

// changes sends COM_CHANGE_USER and returns the last packet.
func (r *raw) changes(user, password, database string) []byte {
	r.t.Helper()
	old := wire.Answer(password, r.greeting.Scramble)
	r.send(0, fmt.Appendf([]byte{byte(wire.ChangeUser)}, "%s\x00%c%s%s\x00%c\x00%s\x00", user, len(old), old, database, 45, wire.NativePassword))
	payload, sequence := r.packet()
	scramble, ok := wire.ParseSwitch(payload)
	if !ok {
		r.t.Fatalf("got %x, want a question", payload)
	}
	r.send(sequence+1, wire.Answer(password, scramble))
	payload, _ = r.packet()
	return payload
}

func (r *raw) changeUser(user, password, database string) {
	r.t.Helper()
	if p := r.changes(user, password, database); !wire.IsOK(p) {
		r.t.Fatalf("change user: %v", wire.ParseError(p))
	}
}

// A client's statements in its tracked form: it hears of what it asked for.
func TestSessionTracking(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1")
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			for _, track := range []uint32{0, wire.ClientSessionTrack} {
				r := dial(t, s.app["s1"], form|track)
				for q, want := range map[string]string{
					"SET autocommit=0, sql_mode=''": "0autocommit=OFF ", "USE foo_other": "1=foo_other ", "SET @x=1": "", "DO 1": "", "SET @@sql_mode='ANSI'": "",
				} {
					_, packets := r.good(wire.Query, q)
					got := ""
					ok, err := wire.ParseOK(packets[0])
					must(t, err)
					for c := range wire.Each(ok.Changes) {
						got += fmt.Sprintf("%d%s=%s ", c.Kind, c.Name, c.Value)
					}
					if track == 0 {
						want = ""
					}
					if got != want || (got == "") != (ok.Status&wire.StatusSessionChanged == 0) {
						t.Errorf("%s: got %q, want %q; status %#x", q, got, want, ok.Status)
					}
				}
			}
		})
	}
}

// A result of 200 MB passes through a router that does not grow by it.
func TestStreams(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for _, via := range []string{"s1", "s2"} {
		c := s.session(via)
		rows, err := c.QueryContext(t.Context(), "SELECT REPEAT('x', 1000) FROM seq_1_to_200000")
		must(t, err)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n := 0
		for rows.Next() {
			if n++; n == 199_000 {
				runtime.GC()
				runtime.ReadMemStats(&after)
			}
		}
		must(t, rows.Err())
		_ = rows.Close()
		if grown := int64(after.HeapInuse) - int64(before.HeapInuse); n != 200_000 || grown > 16<<20 {
			t.Errorf("by %s: %d rows, %d bytes more in use", via, n, grown)
		}
	}
}

// A statement that is too long is refused by the server, before all of it has been read.
func TestTooLong(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for _, via := range []string{"s1", "s2"} {
		c, err := s.open(via, func(c *mysql.Config) { c.MaxAllowedPacket = 100 << 20 }).Conn(t.Context())
		must(t, err)
		_, err = c.ExecContext(t.Context(), "INSERT INTO t (v) VALUES (?)", make([]byte, 70<<20))
		if e, ok := errors.AsType[*mysql.MySQLError](err); !ok || e.Number != 1153 && e.Number != 1927 {
			t.Errorf("by %s: got %v, want 1153", via, err)
		}
		_ = c.Close()
		on(t, s.session(via), "s1")
	}
}

// A client that leaves in the middle of a statement takes nothing with it.
func TestLeavesInTheMiddle(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1")
	r := s.routers["s1"]
	for _, n := range []int{2, 100, small, requestChunk, requestChunk + 1, 1 << 20} {
		c := dial(t, s.app["s1"], 0)
		head := make([]byte, wire.HeaderSize)
		wire.PutHeader(head, 2<<20, 0)
		_, err := c.Write(append(append(head, byte(wire.Query)), strings.Repeat("x", n)...))
		must(t, err)
		must(t, c.Close())
		poll(t, "it is gone", patience, func() bool { return r.sessions.count() == 0 && r.writes.used() == 0 })
		next := dial(t, s.app["s1"], 0)
		if got := next.one("SELECT 7"); got != "7" {
			t.Errorf("after %d bytes: the next client gets %q", n, got)
		}
		next.send(0, []byte{byte(wire.Quit)})
		next.ended()
	}
}

// Requests may be sent without waiting for answers; they are answered in turn.
func TestPipelined(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1")
	c := dial(t, s.app["s1"], 0)
	var b []byte
	for range 50 {
		b = append(b, wire.Frame(0, append([]byte{byte(wire.Query)}, "DO 1 /* "+strings.Repeat("x", 300)+" */"...))...)
	}
	_, err := c.Write(b)
	must(t, err)
	for range 50 {
		if p, sequence := c.packet(); !wire.IsOK(p) || sequence != 1 {
			t.Fatalf("got %x", p)
		}
	}
}
