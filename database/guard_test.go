package database

import (
	"strings"
	"testing"

	"trivet/internal/part"
)

func TestRefuses(t *testing.T) {
	at := func(mib uint64) disk { return disk{known: true, free: mib << 20} }
	for _, c := range []struct {
		what   string
		writer string
		disk   disk
		now    guarded
		want   bool
	}{
		{"room", "s1", at(300), guardOff, false},
		{"not looked at", "s1", disk{}, guardOn, false},
		{"nearly full", "s1", at(100), guardOff, true},
		{"little room, never refused", "s1", at(200), guardOff, false},
		{"little room, refused before", "s1", at(200), guardOn, true},
		{"room again", "s1", at(256), guardOn, false},
		{"another can serve", "s1 and s2", at(100), guardOff, false},
		{"another takes the writes", "s2", at(100), guardOn, false},
	} {
		writer, _, other := strings.Cut(c.writer, " ")
		v := view{self: "s1", role: part.DatabaseRole{Writer: writer}, quorum: true, disk: c.disk}
		if other {
			v.members = []part.Member{{Name: "s2", Alive: true, Database: part.DatabaseMember{State: part.DatabaseSynced}}}
		}
		if got := v.refuses(c.now); got != c.want {
			t.Errorf("%s: got %t, want %t", c.what, got, c.want)
		}
	}
}

// With its disk nearly full and nobody else to serve, the database refuses
// writes, goes on reading, says so, and takes writes again by itself.
func testGuard(t *testing.T, s *single) {
	app := s.as(t, "foobar", secret, "foobar")
	s.exec(t, app, "CREATE TABLE room (id INT PRIMARY KEY)", "INSERT INTO room VALUES (1)")
	writes := func(id int) error {
		_, err := app.ExecContext(t.Context(), "REPLACE INTO room VALUES (?)", id)
		return err
	}
	s.free.Store(100 << 20)
	s.until(t, "writes are refused", func() bool { return writes(2) != nil })
	if err := writes(2); mysqlCode(err) != 1290 {
		t.Errorf("write to a full disk: got %v, want error 1290", err)
	}
	s.exec(t, app, "SELECT * FROM room")
	s.until(t, "check says so", func() bool { return s.d.Check(t.Context()) != nil })
	if st := s.d.Status(); st.State != part.DatabaseSynced {
		t.Errorf("state while writes are refused: got %q, want %q: reads go on", st.State, part.DatabaseSynced)
	}
	s.free.Store(200 << 20)
	s.until(t, "the new measure is known", func() bool { return s.says("192 MiB") })
	if writes(3) == nil {
		t.Error("a little room: writes are taken, want them refused until there is more")
	}
	s.free.Store(1 << 30)
	s.until(t, "writes are taken again", func() bool { return writes(4) == nil })
	s.until(t, "all is well", func() bool { return s.d.Check(t.Context()) == nil })
}
