package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// bench is one node, whose copies go to two folders.
type bench struct {
	t      *testing.T
	db     *mariadb
	key    key
	places []store
	dirs   []string
	tmp    string
	warned []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	g := newGalera(t, 1)
	b := &bench{t: t, db: g.nodes[0], key: newKey(t), tmp: g.dir + "/tmp"}
	for _, dir := range []string{b.tmp, b.tmp + "-archive"} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"s2", "s3"} {
		dir := g.dir + "/copies-" + name
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		b.dirs = append(b.dirs, dir)
		b.places = append(b.places, folder{name, dir})
	}
	return b
}

func newKey(t *testing.T) key {
	t.Helper()
	text, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	k, err := parseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func quiet(Progress) {}

// backup makes a full one.
func (b *bench) backup() Manifest {
	b.t.Helper()
	m, lost, err := full{
		key: b.key, server: "s1", uuid: b.db.uuid(b.t), data: b.db.data(), socket: b.db.socket(), tmp: b.tmp, places: b.places, say: quiet,
	}.run(b.t.Context())
	if err != nil || len(lost) > 0 {
		b.t.Fatalf("backup: %v, without %v", err, lost)
	}
	return m
}

// archive archives the log until stop; await waits until all is archived.
func (b *bench) archive(m Manifest) (await, stop func()) {
	b.t.Helper()
	g, err := parseGTID(m.GTID)
	if err != nil {
		b.t.Fatal(err)
	}
	a := &archive{log: slog.New(slog.DiscardHandler), key: b.key, server: "s1", chain: m.Log, data: b.db.data(), tmp: b.tmp + "-archive", places: b.places, base: g.seq}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("archive: %v", err)
		}
	})
	b.t.Cleanup(stop)
	return func() {
		b.t.Helper()
		at := b.db.at(b.t)
		eventually(b.t, at+" is archived", 5*time.Second, func() bool { return position(a.at.Load()) == at })
	}, stop
}

// restore restores beside, into a database named as; it returns what is in table m of it.
func (b *bench) restore(as string, t Target) (Rebuilt, error) {
	b.t.Helper()
	r := rebuilder{key: b.key, places: b.places, tmp: b.tmp, say: quiet, warn: func(w string) { b.warned = append(b.warned, w) }}
	s, done, err := r.rebuild(b.t.Context(), t)
	if err != nil {
		return done, err
	}
	defer s.remove()
	_, err = b.loader(s.socket()).beside(b.t.Context(), "app", as)
	return done, err
}

func (b *bench) loader(from string) loader {
	return loader{from: from, to: b.db.socket(), marks: marks{b.tmp}, say: quiet, warn: func(string) {}}
}

// leavesNothing makes sure that no database and no file remains of a restore.
func (b *bench) leavesNothing(want ...string) {
	b.t.Helper()
	rows, err := query(b.t.Context(), b.db.socket(), "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN ('mysql','sys','information_schema','performance_schema') ORDER BY 1")
	if err != nil {
		b.t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		got = append(got, r[0])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("databases (-want +got):\n%s", diff)
	}
	entries, err := os.ReadDir(b.tmp)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		b.t.Errorf("%s is left in the folder for work", e.Name())
	}
}

// TestRestore goes back to the moment before a table was dropped: by its
// transaction, and by the time. All rows acknowledged before are there, and none after.
func TestRestore(t *testing.T) {
	b := newBench(t)
	db := b.db
	db.do(t, "CREATE DATABASE app; CREATE TABLE app.m (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT); CREATE VIEW app.v AS SELECT t FROM app.m")
	db.do(t, "USE app; CREATE TABLE app.log (id INT AUTO_INCREMENT PRIMARY KEY, n INT); CREATE TRIGGER app.count AFTER INSERT ON app.m FOR EACH ROW INSERT INTO log (n) VALUES (NEW.id)")
	db.do(t, "CREATE FUNCTION app.two() RETURNS INT DETERMINISTIC RETURN 2")
	insert := func(n int, text string) {
		for i := range n {
			db.do(t, "INSERT INTO app.m (t) VALUES ('%s %d 🙂')", text, i)
		}
	}
	insert(20, "before the backup")
	m := b.backup()
	await, stop := b.archive(m)
	insert(30, "after it")
	db.do(t, "FLUSH LOCAL BINARY LOGS") // the log goes on in another file
	insert(30, "in another file")
	db.do(t, "BEGIN; INSERT INTO app.m (t) VALUES ('one'); INSERT INTO app.m (t) VALUES ('two'); COMMIT")
	want := sums(t, db, "app")
	// Transactions are told apart by whole seconds: the drop is in a later one than all before it.
	second := time.Now().Unix()
	eventually(t, "the next second", 2*time.Second, func() bool { return time.Now().Unix() > second })
	moment := time.Now().Truncate(time.Second)
	db.do(t, "DROP TABLE app.m")
	dropped := db.at(t)
	db.do(t, "CREATE TABLE app.later (id INT PRIMARY KEY); INSERT INTO app.later VALUES (1)")
	await()

	for name, to := range map[string]Target{"by_gtid": {Before: dropped}, "by_time": {Time: moment}} {
		if _, err := b.restore(name, to); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, sums(t, db, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if got := db.do(t, "SELECT COUNT(*), %s.two() FROM %s.v", name, name); got != "82\t2" {
			t.Errorf("%s: rows of the view and result of the function = %q, want 82 and 2", name, got)
		}
		db.do(t, "INSERT INTO %s.m (t) VALUES ('anew')", name)
		if got := db.do(t, "SELECT COUNT(*) FROM %s.log", name); got != "83" {
			t.Errorf("%s: the trigger has counted %s, want 83", name, got)
		}
	}
	if done, err := b.restore("all", Target{}); err != nil || done.GTID != position(mustGTID(t, dropped).seq+2) {
		t.Errorf("newest = %+v, %v", done, err)
	}
	if got := db.do(t, "SELECT GROUP_CONCAT(TABLE_NAME ORDER BY 1) FROM information_schema.TABLES WHERE TABLE_SCHEMA='all'"); got != "later,log" {
		t.Errorf("tables after the drop = %s, want them without the view that lost its table", got)
	}
	b.replace(t, Target{Before: dropped}, want)
	await()
	stop()
	b.taken()
	b.refusals(m, dropped)
}

func mustGTID(t *testing.T, text string) gtid {
	t.Helper()
	g, err := parseGTID(text)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// sums are the checksums of a database's tables.
func sums(t *testing.T, db *mariadb, database string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, table := range []string{"m", "log"} {
		out[table] = strings.Fields(db.do(t, "CHECKSUM TABLE %s.%s EXTENDED", database, table))[1]
	}
	return out
}

// replace puts the moment in the place of the app's database.
func (b *bench) replace(t *testing.T, to Target, want map[string]string) {
	t.Helper()
	r := rebuilder{key: b.key, places: b.places, tmp: b.tmp, say: quiet, warn: func(w string) { t.Error(w) }}
	s, _, err := r.rebuild(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	defer s.remove()
	done, err := b.loader(s.socket()).replace(t.Context(), "app", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, sums(t, b.db, "app")); diff != "" {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
	if got := b.db.do(t, "SELECT COUNT(*), app.two() FROM app.v"); got != "82\t2" {
		t.Errorf("rows of the view and result of the function = %q, want 82 and 2", got)
	}
	if got := b.db.do(t, "SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA='app'"); got != "1" {
		t.Errorf("triggers = %s, want 1", got)
	}
	if got := b.db.do(t, "SELECT GROUP_CONCAT(TABLE_NAME ORDER BY 1) FROM information_schema.TABLES WHERE TABLE_SCHEMA='%s'", done.Kept); got != "later,log" {
		t.Errorf("kept tables = %s, want those that were there", got)
	}
	for _, name := range []string{"by_gtid", "by_time", "all", done.Kept} {
		b.db.do(t, "DROP DATABASE `%s`", name)
	}
}

// taken refuses a name that is taken, and leaves what has it alone.
func (b *bench) taken() {
	b.t.Helper()
	if _, err := b.restore("app", Target{}); err == nil || !strings.Contains(err.Error(), "there is a database app already") {
		b.t.Errorf("restore over the app's database = %v", err)
	}
	b.leavesNothing("app")
}

// refusals damages copies in all ways; each is refused by name, and nothing remains.
func (b *bench) refusals(m Manifest, dropped string) {
	t := b.t
	logs := look(t.Context(), b.places, logPrefix).logs(m.Log)
	tests := []struct {
		name   string
		damage func(dir string)
		places int // that are damaged
		want   string
	}{
		{"a flipped bit in a piece", b.flip(pieceName(m.ID, 0)), 2, "piece 1 of 1 of backup " + m.ID + " is unusable"},
		{"a flipped bit in one copy", b.flip(pieceName(m.ID, 0)), 1, ""},
		{"a missing piece", b.drop(pieceName(m.ID, 0)), 2, "piece 1 of 1 of backup " + m.ID + " is missing: no place has " + pieceName(m.ID, 0)},
		{"a short piece", b.cut(pieceName(m.ID, 0)), 2, "piece 1 of 1 of backup " + m.ID + " is unusable"},
		{"a flipped bit in the manifest", b.flip(manifestName(m.ID)), 2, "the manifest of backup " + m.ID + " is unusable"},
		{"a flipped bit in the log", b.flip(logs[0].name()), 2, logs[0].String() + " is unusable"},
		{"a missing piece of the log", b.drop(logs[0].name()), 2, "transaction " + position(logs[0].prev+1)},
		{"a missing last piece of the log", b.drop(logs[len(logs)-1].name()), 2, "transaction " + position(logs[len(logs)-1].prev+1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, dir := range b.dirs[:tt.places] {
				restore := save(t, dir)
				tt.damage(dir)
				defer restore()
			}
			b.t, b.warned = t, nil
			_, err := b.restore("damaged", Target{To: position(logs[len(logs)-1].last)})
			if tt.want == "" {
				if err != nil || len(b.warned) != 1 || !strings.Contains(b.warned[0], "s2") {
					t.Fatalf("err = %v, warned %q; want the other copy, and a word", err, b.warned)
				}
				b.db.do(t, "DROP DATABASE damaged")
			} else if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
			b.leavesNothing("app")
		})
	}
	b.t = t
	right := b.key
	b.key = newKey(t)
	_, err := b.restore("damaged", Target{Before: dropped})
	if wrong := as[WrongKeyError](t, err); wrong.Sealed != right.recipient || wrong.Have != b.key.recipient {
		t.Errorf("wrong key = %+v", wrong)
	}
	b.key = right
	if _, err := b.restore("damaged", Target{To: position(1 << 40)}); err == nil {
		t.Error("restore to a transaction that never was = nil")
	}
	if _, err := b.restore("damaged", Target{Time: m.At.Add(-time.Hour)}); err == nil || !strings.Contains(err.Error(), "after the moment to go back to") {
		t.Errorf("restore to before all backups = %v", err)
	}
	b.leavesNothing("app")
}

func (b *bench) flip(name string) func(string) {
	return func(dir string) {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			b.t.Fatal(err)
		}
		data[len(data)*2/3] ^= 4
		if err := os.WriteFile(path, data, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) cut(name string) func(string) {
	return func(dir string) {
		if err := os.Truncate(filepath.Join(dir, name), 1000); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) drop(name string) func(string) {
	return func(dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// save keeps a folder's content, for restore to bring back.
func save(t *testing.T, dir string) (restore func()) {
	t.Helper()
	kept := filepath.Join(t.TempDir(), "kept")
	if err := os.CopyFS(kept, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.CopyFS(dir, os.DirFS(kept))); err != nil {
			t.Error(err)
		}
	}
}

// TestHalfLoaded makes a load fail in its middle: nothing of it remains.
func TestHalfLoaded(t *testing.T) {
	b := newBench(t)
	b.db.do(t, "CREATE DATABASE app; CREATE TABLE app.a (id INT PRIMARY KEY); CREATE TABLE app.z (id INT PRIMARY KEY, t TEXT)")
	b.db.do(t, "INSERT INTO app.a VALUES (1); INSERT INTO app.z VALUES (1, REPEAT('x', 60000))")
	b.backup()
	b.db.do(t, "SET GLOBAL max_allowed_packet=16384") // table z does not pass
	_, err := b.restore("half", Target{})
	if err == nil {
		t.Error("restore = nil, want an error")
	}
	t.Log(err)
	b.leavesNothing("app")
	if got := fmt.Sprint((marks{b.tmp}).names()); got != "[]" {
		t.Errorf("marks = %s", got)
	}
}
