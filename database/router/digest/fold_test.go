package digest

import (
	"strings"
	"testing"
)

func folded(text string, plain bool) (string, uint64) {
	var f folder
	f.fold([]byte(text), plain)
	return f.shown(), f.hash
}

func TestFold(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"SELECT 1", "select ?"},
		{"select\t\n 1 ;", "select ?"},
		{";;select 1;;", "select ?"},
		{"BEGIN; COMMIT;", "begin; commit"},

		// literals
		{"SELECT * FROM t WHERE id=17 AND name = 'it''s' AND x=\"a\\\"b\"", "select * from t where id = ? and name = ? and x = ?"},
		{`SELECT 'a\'b', 'c'`, "select ?, ?"},
		{"SELECT 1.5, .5, 1., 1e10, 1.5E-3, 0x1F, 0b01, x'0F', X'0f', b'1', n'x', _utf8mb4'x', -5, +5, - 5, --5", "select " + strings.TrimSuffix(strings.Repeat("?, ", 16), ", ")},
		{"SELECT 'a' 'b'", "select ?"},
		{"SELECT a-5, a - -5, (1)-5, 7-5", "select a - ?, a - ?, (?) - ?, ? - ?"},
		{"SELECT NULL, TRUE, false", "select ?, ?, ?"},
		{"WHERE a IS NULL AND b IS NOT NULL AND c <=> NULL AND d IS TRUE", "where a is null and b is not null and c <=> ? and d is true"},
		{"CREATE TABLE t (a INT NOT NULL)", "create table t (a int not null)"},
		{"UPDATE t SET `null` = 5, t.true = -1", "update t set `null` = ?, t.true = ?"},
		{"SET PASSWORD FOR 'u'@'h' = PASSWORD('secret')", "set password for ? @ ? = password(?)"},
		{"SELECT DATE '2026-01-01' + INTERVAL -1 DAY", "select date ? + interval ? day"},
		{"SELECT 'never ends", "select ?"},

		// names
		{"SELECT 2fa, t1.1st, `a b`.`c``d`, @x, @@session.y, a$b", "select 2fa, t1.1st, `a b`.`c``d`, @x, @@session.y, a$b"},
		{"SELECT größe FROM T_2024", "select größe from t_2024"},
		{"SELECT `a\x1b[2J`", "select `a?[2j`"},
		{"SELECT a\xff", "select a?"},

		// comments
		{"/* x 'y' */SELECT/**/1 -- c 'd\n, 2 # e\n--\n-- x", "select ?, ?"},
		{"SELECT 5--3", "select ? - ?"},
		{"SELECT /*!50000 STRAIGHT_JOIN */ a /*M!100100 , b */ FROM t", "select straight_join a, b from t"},
		{"SELECT 1 /* never ends", "select ?"},

		// lists
		{"SELECT * FROM t WHERE id IN (1)", "select * from t where id in (?+)"},
		{"SELECT * FROM t WHERE id IN(1, 'a', -3, NULL, ?)", "select * from t where id in(?+)"},
		{"SELECT * FROM t WHERE id IN (1, a)", "select * from t where id in (?, a)"},
		{"WHERE (a, b) IN ((1, 2), (3, 4), (5, 6)) AND c", "where (a, b) in ((?+)) and c"},
		{"SELECT f(1), f(1, 2), f()", "select f(?), f(?+), f()"},
		{"SELECT * FROM t LIMIT 5, 10", "select * from t limit ?, ?"},

		// rows
		{"INSERT INTO t VALUES (1, 'a')", "insert into t values (?+)"},
		{"INSERT INTO t (a, b) VALUES (1, 'a'), (2, 'b'),(3,'c)') , (4, NOW())", "insert into t (a, b) values (?+)"},
		{"INSERT INTO t VALUES (1), (2)", "insert into t values (?+)"},
		{"INSERT INTO t VALUES (?, NOW(), DEFAULT), (?, NOW(), (SELECT 1))", "insert into t values (?, now(), default)"},
		{"INSERT INTO t (a) VALUES (1), (2) ON DUPLICATE KEY UPDATE a = VALUES(a), b = VALUES(b)", "insert into t (a) values (?+) on duplicate key update a = values(a), b = values(b)"},

		// signs
		{"SELECT a<=b, a->>'$.x', a||b, a:=1, a!=b, a<>b, a<<2", "select a <= b, a ->> ?, a || b, a := ?, a != b, a <> b, a << ?"},
		{"SELECT COUNT(*) FROM (SELECT 1) x", "select count(*) from (select ?) x"},
	} {
		if got, _ := folded(tt.text, false); got != tt.want {
			t.Errorf("fold(%q)\n got %q\nwant %q", tt.text, got, tt.want)
		}
	}
}

// With NO_BACKSLASH_ESCAPES a backslash does not hide the end of a string.
func TestFoldPlain(t *testing.T) {
	const text = `SELECT 'a\', secret FROM t -- '`
	if got, _ := folded(text, true); got != "select ?, secret from t" {
		t.Errorf("plain: got %q", got)
	}
	if got, _ := folded(text, false); got != "select ?" {
		t.Errorf("with escapes: got %q", got)
	}
}

func TestSameDigest(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"SELECT a FROM t WHERE b=1", "select a\nfrom t /* by x */ where b = 'y';", true},
		{"INSERT INTO t VALUES (1,2)", "insert into t values (3, 4), (5, 6)", true},
		{"SELECT a FROM t WHERE b IN (1)", "SELECT a FROM t WHERE b IN(1,2,3)", true},
		{"SELECT count (*)", "SELECT COUNT(*)", true},
		{"SELECT ab", "SELECT a b", false},
		{"SELECT a FROM t", "SELECT a FROM u", false},
		{"SELECT a.b", "SELECT a, b", false},
		{"SELECT a < = b", "SELECT a <= b", false},
		{"SELECT `a`", "SELECT 'a'", false},
	} {
		_, a := folded(tt.a, false)
		_, b := folded(tt.b, false)
		if (a == b) != tt.same {
			t.Errorf("%q and %q: same = %v, want %v", tt.a, tt.b, a == b, tt.same)
		}
	}
}

// Of what is too long, what is seen is one digest, however long it is.
func TestFoldLong(t *testing.T) {
	want := "insert into t values (?+) …"
	for _, n := range []int{1000, 3001, 100_000} {
		if got, _ := folded("INSERT INTO t VALUES "+strings.Repeat("(1, 'abc'), ", n)+"(1, 'x') AS secret", false); got != want {
			t.Errorf("%d rows: got %q, want %q", n, got, want)
		}
	}
	if got, _ := folded("SELECT a IN ("+strings.Repeat("123456, ", 10_000)+"1)", false); got != "select a in (?+) …" {
		t.Errorf("list: got %q", got)
	}
	if got, _ := folded("SELECT '"+strings.Repeat("secret", 10_000)+"', a", false); got != "select …" {
		t.Errorf("string: got %q", got)
	}
	got, hash := folded("SELECT "+strings.Repeat("abcdefg, ", 200)+"x", false)
	if len(got) > longestText+len(cutMark) || !strings.HasSuffix(got, cutMark) {
		t.Errorf("%d bytes are shown, ending in %q", len(got), got[len(got)-5:])
	}
	if _, other := folded("SELECT "+strings.Repeat("abcdefg, ", 200)+"y", false); other == hash {
		t.Error("what is not shown makes no difference")
	}
}

// A folded statement folds to itself, and no part of a literal is in it.
func FuzzFold(f *testing.F) {
	for _, s := range []string{
		"SELECT * FROM t WHERE a IN (1, -2, 'x') AND (b, c) IN ((1, 2), (3, 4)) -- c\n", "INSERT INTO t VALUES (1, NOW()), (2, NOW()) ON DUPLICATE KEY UPDATE a = VALUES(a), b = (2)",
		"/*!50000 SELECT */ .5, t.5, ?.5, 1 . 5, 1e5x, `a``b`.c, @'x', _utf8'x', x'0F', - - 5", "a;;b; - (-5) ?+) (?+), (?+), (1) a - >b", "values values (1) , (2", "'\\''",
	} {
		f.Add(s, "secret", false)
	}
	f.Fuzz(func(t *testing.T, text, literal string, plain bool) {
		if len(text) > 1<<10 || len(literal) > 1<<10 {
			return
		}
		var first, second folder
		first.fold([]byte(text), plain)
		if first.over || strings.Contains(text, "`") {
			return // cut, or a name in quotes that may never end
		}
		again := string(first.out[:first.n])
		if second.fold([]byte(again), plain); again != string(second.out[:second.n]) || first.hash != second.hash {
			t.Errorf("fold(%q) = %q, and that folds to %q", text, again, second.out[:second.n])
		}
		if got, _ := folded("SELECT a = "+quote(literal, plain)+", b", plain); got != "select a = ?, b" {
			t.Errorf("%q is seen in %q", literal, got)
		}
	})
}

func quote(s string, plain bool) string {
	s = strings.ReplaceAll(s, "'", "''")
	if !plain {
		s = strings.ReplaceAll(s, `\`, `\\`)
	}
	return "'" + s + "'"
}
