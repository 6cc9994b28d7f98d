package database

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// mysqlCode is the number of a server's error; 0 if it is none.
func mysqlCode(err error) uint16 {
	e, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return 0
	}
	return e.Number
}

// What is safe is so by default, as the running mariadbd says itself.
func testSafe(t *testing.T, s *single) {
	for name, want := range map[string]string{
		"innodb_snapshot_isolation": "1", "innodb_flush_log_at_trx_commit": "1", "sync_binlog": "1", "binlog_format": "ROW",
		"character_set_server": "utf8mb4", "collation_server": "utf8mb4_unicode_ci", "innodb_force_primary_key": "1",
		"local_infile": "0", "secure_file_priv": s.paths.Run + "/", "skip_networking": "1", "wsrep_mode": "STRICT_REPLICATION",
		"wsrep_OSU_method": "TOI", "innodb_strict_mode": "1", "innodb_doublewrite": "1", "innodb_checksum_algorithm": "full_crc32", "read_only": "0",
		"sql_mode": "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_CREATE_USER,NO_ENGINE_SUBSTITUTION",
	} {
		var got string
		if err := s.db.QueryRowContext(t.Context(), "SELECT @@GLOBAL."+name).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %q (%v), want %q", name, got, err, want)
		}
	}
	app := s.as(t, "foobar", secret, "foobar")
	s.exec(t, app, "CREATE TABLE safe (id INT PRIMARY KEY, word VARCHAR(4))", "INSERT INTO safe VALUES (1, '😀')")
	for query, want := range map[string]uint16{
		"INSERT INTO safe VALUES (2, 'too long')":                1406,
		"INSERT INTO safe VALUES ('x', '')":                      1366,
		"CREATE TABLE keyless (id INT)":                          1173,
		"CREATE TABLE lost (id INT PRIMARY KEY) ENGINE=MyISAM":   4165,
		"LOAD DATA LOCAL INFILE '/etc/hostname' INTO TABLE safe": 4166,
		"LOAD DATA INFILE '/etc/hostname' INTO TABLE safe":       1045,
		"SELECT 1 INTO OUTFILE '" + s.paths.Run + "/x'":          1227,
		"SELECT * FROM mysql.global_priv":                        1142,
		"CREATE DATABASE another":                                1044,
		"SET GLOBAL sync_binlog=0":                               1227,
		"CREATE USER another@localhost":                          1227,
	} {
		if _, err := app.ExecContext(t.Context(), query); mysqlCode(err) != want {
			t.Errorf("%s: got %v, want error %d", query, err, want)
		}
	}
	if _, err := s.db.ExecContext(t.Context(), "SELECT 1 INTO OUTFILE '/tmp/trivet-outfile'"); mysqlCode(err) != 1290 {
		t.Errorf("a file outside of secure_file_priv, as root: got %v, want error 1290", err)
	}
	testLostUpdate(t, s)
}

// Two that read and then write the same row: the second is refused, not followed.
func testLostUpdate(t *testing.T, s *single) {
	app := s.as(t, "foobar", secret, "foobar")
	s.exec(t, app, "CREATE TABLE counter (id INT PRIMARY KEY, n INT)", "INSERT INTO counter VALUES (1, 0)")
	first, err := app.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := app.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	for _, row := range []func() error{
		func() error { return first.QueryRow("SELECT n FROM counter").Scan(&n) },
		func() error { return second.QueryRow("SELECT n FROM counter").Scan(&n) },
		func() error { _, err := first.Exec("UPDATE counter SET n=?", n+1); return err },
		first.Commit,
	} {
		if err := row(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := second.Exec("UPDATE counter SET n=?", n+1); mysqlCode(err) != 1020 {
		t.Errorf("the second update: got %v, want error 1020", err)
	}
	_ = second.Rollback()
}

// A large table's change is told while it lasts.
func testLargeChange(t *testing.T, s *single) {
	s.exec(t, s.as(t, "foobar", secret, "foobar"),
		"CREATE TABLE big (id INT PRIMARY KEY, a INT)",
		"CREATE TABLE small (id INT PRIMARY KEY, a INT)",
	)
	app := s.as(t, "foobar", secret, "foobar")
	for i := range 8 { // no statement of many seconds, on a busy machine either
		s.exec(t, app, fmt.Sprintf("INSERT INTO big SELECT seq, seq FROM seq_%d_to_%d", i*20_000+1, (i+1)*20_000))
	}
	s.exec(t, app, "ANALYZE TABLE big")
	for _, c := range []struct {
		table string
		told  bool
	}{{"small", false}, {"big", true}} {
		// A reader holds the table, so that its change waits for as long as the test wants.
		reader := s.as(t, "foobar", secret, "foobar")
		tx, err := reader.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.QueryRow("SELECT COUNT(*) FROM " + c.table).Scan(new(int)); err != nil {
			t.Fatal(err)
		}
		changer, err := s.db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := changer.ExecContext(t.Context(), "SET SESSION wsrep_on=OFF"); err != nil { // else the change would end the reader
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := changer.ExecContext(context.Background(), "ALTER TABLE foobar."+c.table+" ADD INDEX by_a (a)")
			_, again := changer.ExecContext(context.Background(), "SET SESSION wsrep_on=ON")
			done <- errors.Join(err, again, changer.Close())
		}()
		if c.told {
			s.until(t, "it is told", func() bool { return s.says("table foobar.big (about") })
		} else {
			s.until(t, "the change waits", func() bool {
				const waits = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'ALTER TABLE %' AND TIME_MS > 2500"
				var n int
				return s.db.QueryRowContext(t.Context(), waits).Scan(&n) == nil && n == 1
			})
			if s.says("is being changed") {
				t.Errorf("a small table's change is told: %v", s.d.Check(t.Context()))
			}
		}
		_ = tx.Rollback()
		if err := <-done; err != nil {
			t.Fatalf("change %s: %v", c.table, err)
		}
		s.until(t, "it is over", func() bool { return s.d.Check(t.Context()) == nil })
	}
}

// says reports whether Check says that.
func (s *single) says(text string) bool {
	err := s.d.Check(context.Background())
	return err != nil && strings.Contains(fmt.Sprint(err), text)
}
