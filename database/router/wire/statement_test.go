package wire

import (
	"strings"
	"testing"
)

func TestScan(t *testing.T) {
	for text, want := range map[string]Traits{
		"SELECT 1":                       Data,
		"  select @x":                    Data | UserVariable,
		"SELECT @@x, @@session.y, @@`z`": Data,
		"SET @x=1":                       UserVariable,
		"set @'x y'=1":                   UserVariable,
		"SET a=1,@b=2":                   UserVariable,
		"SELECT 1 INTO @x":               Data | UserVariable,
		"SELECT '@x', \"@y\", `@z` -- @a\n # @b\n":   Data,
		"SELECT 'it''s @x', 'a\\'@b'":                Data,
		"SELECT 'a\\\\', @x":                         Data | UserVariable,
		"/* @x */ SELECT 1":                          Data,
		"/*!40101 SET @OLD=@@x */":                   UserVariable,
		"/*M!100100 SET @OLD=@@x */":                 UserVariable,
		"CREATE DEFINER=`a`@`b` VIEW v AS SELECT 1":  0,
		"CREATE DEFINER=a@'%' VIEW v AS SELECT 1":    0,
		"CREATE TEMPORARY TABLE t (a INT)":           Temporary,
		"CREATE OR REPLACE TEMPORARY TABLE t AS x":   Temporary,
		"CREATE TABLE temporary (a INT)":             Temporary, // once too often
		"CREATE TABLE t (a INT, temporary INT)":      0,
		"LOCK TABLES t READ":                         Lock,
		"SELECT get_lock('a',1)":                     Data | Lock,
		"SELECT 'get_lock(1)', forget_lock":          Data,
		"INSERT INTO t VALUES (1) ; ":                Data,
		"DO 1;SET @x=1":                              UserVariable | Many,
		"DO 1; DO 2":                                 Many,
		"DO ';'; ":                                   0,
		"HANDLER t OPEN":                             Handle,
		"PREPARE p FROM 'x'":                         Prepare,
		"SET TRANSACTION READ ONLY":                  SetTransaction,
		"SET SESSION TRANSACTION READ ONLY":          0,
		"SET NAMES utf8mb4 COLLATE x":                SetNames,
		"SET STATEMENT a=1 FOR SELECT 1":             SetStatement,
		"KILL QUERY 5":                               Kill,
		"ROLLBACK":                                   Rollback,
		"ROLLBACK WORK":                              Rollback,
		"ROLLBACK TO SAVEPOINT x":                    0,
		"ROLLBACK; DO 1":                             Rollback | Many,
		"update t set names='x' where transaction=1": Data,
		"WITH a AS (SELECT 1) SELECT * FROM a":       0,
		"(SELECT 1)":                                 Data,
		"":                                           0,
		"'":                                          0,
		"SELECT 'ünïcödé@x'":                         Data,
	} {
		if got := Scan([]byte(text), 0); got != want {
			t.Errorf("%s: got %b, want %b", text, got, want)
		}
		s := NewScanner(0)
		for i := range len(text) {
			s.Feed([]byte(text[i : i+1]))
		}
		if got := s.Traits(); got != want {
			t.Errorf("%s, byte by byte: got %b, want %b", text, got, want)
		}
	}
	if got := Scan([]byte(`SELECT 'a\', @x`), StatusPlainBackslash); got != Data|UserVariable {
		t.Errorf("plain backslash: got %b", got)
	}
}

// FuzzScan: pieces are as good as the whole, and what stands in quotes says nothing.
func FuzzScan(f *testing.F) {
	f.Add("SELECT 'a' /* b */ @x; -- c", 3)
	f.Fuzz(func(t *testing.T, text string, at int) {
		whole := Scan([]byte(text), 0)
		at = max(0, min(at, len(text)))
		s := NewScanner(0)
		s.Feed([]byte(text[:at]))
		s.Feed([]byte(text[at:]))
		if got := s.Traits(); got != whole {
			t.Errorf("in pieces: got %b, want %b", got, whole)
		}
		quoted := "DO '" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(text) + "'"
		if got := Scan([]byte(quoted), 0); got != 0 {
			t.Errorf("%s: got %b, want none", quoted, got)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	text := []byte("INSERT INTO messages (uid, author, text, server, created) VALUES ('k-1234567890', 'somebody', 'a text of some length that somebody has written', 's1', '2026-11-24 03:00:00.000000')")
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		Scan(text, 0)
	}
}
