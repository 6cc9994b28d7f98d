package database

import (
	"testing"

	"trivet/internal/part"
)

// One mariadbd serves all tests of what an account may do and what is safe by default.
func TestSingle(t *testing.T) {
	s := newSingle(t)
	t.Run("passwords", func(t *testing.T) { testPasswords(t, s) })
	t.Run("reader", func(t *testing.T) { testReader(t, s) })
	t.Run("safe", func(t *testing.T) { testSafe(t, s) })
	t.Run("large change", func(t *testing.T) { testLargeChange(t, s) })
	t.Run("restart", func(t *testing.T) { testRestart(t, s) })
	t.Run("guard", func(t *testing.T) { testGuard(t, s) })
}

// The password changes without a moment in which one that is in use is refused.
func testPasswords(t *testing.T, s *single) {
	const next = "the next one's"
	secrets := func(m map[string]string, newest string) {
		t.Helper()
		m[part.SecretReader] = "reader's"
		s.change(t, func(st *part.State) { st.Secrets = m })
		s.until(t, "the database takes "+newest, func() bool { return s.d.Status().Accepts == part.Fingerprint(newest) })
	}
	takes := func(password string) bool {
		return s.as(t, "foobar", password, "foobar").PingContext(t.Context()) == nil
	}
	if !takes(secret) || takes(next) {
		t.Fatal("before: want the first password alone to be taken")
	}
	secrets(map[string]string{part.SecretAppDatabase: secret, part.SecretAppDatabaseNext: next}, next)
	if !takes(secret) || !takes(next) {
		t.Error("the next agreed: want both to be taken")
	}
	secrets(map[string]string{part.SecretAppDatabase: next, part.SecretAppDatabaseOld: secret}, next)
	if !takes(secret) || !takes(next) {
		t.Error("the next in use: want both to be taken")
	}
	s.change(t, func(st *part.State) {
		st.Secrets = map[string]string{part.SecretAppDatabase: next, part.SecretReader: "reader's"}
	})
	s.until(t, "the old one is refused", func() bool { return !takes(secret) })
	if !takes(next) {
		t.Error("after: want the next to be taken")
	}
	s.change(t, func(st *part.State) {
		st.Secrets = map[string]string{part.SecretAppDatabase: secret, part.SecretReader: "reader's"}
	})
	s.until(t, "the first is back", func() bool { return takes(secret) })
}

// Who only looks sees everything and can change nothing.
func testReader(t *testing.T, s *single) {
	app, reader := s.as(t, "foobar", secret, "foobar"), s.as(t, Reader, "reader's", "foobar")
	s.exec(t, app, "CREATE TABLE seen (id INT PRIMARY KEY)", "INSERT INTO seen VALUES (1)")
	s.exec(t, reader, "SELECT * FROM seen", "SHOW CREATE TABLE seen", "SHOW FULL PROCESSLIST", "EXPLAIN SELECT * FROM seen")
	for _, q := range []string{
		"INSERT INTO seen VALUES (2)", "DELETE FROM seen", "UPDATE seen SET id=3", "DROP TABLE seen", "CREATE TABLE other (id INT PRIMARY KEY)",
		"SET GLOBAL read_only=ON", "CREATE USER x@localhost", "KILL 1", "SELECT 1 INTO OUTFILE '/tmp/x'",
	} {
		if _, err := reader.ExecContext(t.Context(), q); err == nil {
			t.Errorf("reader: %s: no error", q)
		}
	}
}
