package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// loader copies a database out of a scratch mariadbd into the running cluster,
// through this server's own mariadbd: Galera takes it to the others. New names
// cannot collide with what the app writes at the writer.
type loader struct {
	from, to string // sockets
	marks    marks
	say      func(Progress)
	warn     func(string)
}

// Loaded is what a load brought.
type Loaded struct {
	Database string `json:"database"`
	Kept     string `json:"kept,omitempty"` // where the tables that were replaced are
	Tables   int    `json:"tables"`
	Rows     int64  `json:"rows"`
}

var databaseForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// dump reads a database of the scratch mariadbd.
func (l loader) dump(ctx context.Context, database string, args ...string) *exec.Cmd {
	return program(ctx, "mariadb-dump", append(append([]string{
		"--no-defaults", "--user=mysql", "--socket=" + l.from, "--default-character-set=utf8mb4", "--max-allowed-packet=1G",
		"--single-transaction", "--quick", "--hex-blob", "--skip-add-locks", "--skip-disable-keys", "--skip-add-drop-table", "--skip-comments",
	}, args...), database)...)
}

// copy copies what dump reads into a database of the cluster.
func (l loader) copy(ctx context.Context, dump *exec.Cmd, into string) error {
	return pipe(dump, client(ctx, l.to, "--database="+into), "read the restored database", "load into database "+into)
}

// begin makes a new database that is half loaded from now on.
func (l loader) begin(ctx context.Context, like, name string) error {
	if err := l.marks.set(name); err != nil {
		return err
	}
	if err := l.create(ctx, like, name); err != nil {
		return errors.Join(err, l.marks.clear(name)) // whatever has that name is not ours
	}
	return nil
}

// create makes a new database as that of the scratch mariadbd is.
func (l loader) create(ctx context.Context, like, name string) error {
	rows, err := query(ctx, l.from, "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME="+quote(like, '\''))
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return fmt.Errorf("at that moment there was no database %s", like)
	}
	there, err := value(ctx, l.to, "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME="+quote(name, '\''))
	if err != nil {
		return err
	}
	if there != "0" {
		return fmt.Errorf("there is a database %s already", name)
	}
	_, err = query(ctx, l.to, fmt.Sprintf("CREATE DATABASE %s CHARACTER SET %s COLLATE %s", quote(name, '`'), rows[0][0], rows[0][1]))
	return err
}

// drop removes what was half loaded, whatever became of ctx.
func (l loader) drop(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return dropMarked(ctx, l.to, l.marks, name)
}

// dropMarked removes a half loaded database and its mark.
func dropMarked(ctx context.Context, socket string, m marks, name string) error {
	if _, err := query(ctx, socket, "DROP DATABASE IF EXISTS "+quote(name, '`')); err != nil {
		return fmt.Errorf("remove database %s, which is half loaded (it is tried again): %w", name, err)
	}
	return m.clear(name)
}

// marks are files that say which databases are half loaded: should a restore
// be cut short, they are removed as soon as that is possible.
type marks struct{ dir string }

const markPrefix = "loading-"

func (m marks) set(name string) error {
	return os.WriteFile(filepath.Join(m.dir, markPrefix+name), nil, 0o600)
}

func (m marks) clear(name string) error {
	err := os.Remove(filepath.Join(m.dir, markPrefix+name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// names are the databases that are half loaded.
func (m marks) names() []string {
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), markPrefix); ok && databaseForm.MatchString(name) {
			out = append(out, name)
		}
	}
	return out
}

// beside copies database from into a new one of another name: whole, or not at all.
func (l loader) beside(ctx context.Context, from, name string) (Loaded, error) {
	l.say(Progress{Step: "loading into database " + name})
	if err := l.begin(ctx, from, name); err != nil {
		return Loaded{}, err
	}
	views, err := l.views(ctx, l.from, from)
	if err == nil {
		err = l.copy(ctx, l.dump(ctx, from, without(from, views, "--skip-triggers", "--routines", "--events")...), name)
	}
	if err == nil {
		l.copyViews(ctx, from, name, views)
		err = l.copyTriggers(ctx, from, name)
	}
	done := Loaded{Database: name}
	if err == nil {
		done.Tables, done.Rows, err = l.compare(ctx, from, name)
	}
	if err != nil {
		return Loaded{}, errors.Join(err, l.drop(ctx, name))
	}
	return done, l.marks.clear(name)
}

// compare makes sure that the cluster has what the scratch mariadbd has.
func (l loader) compare(ctx context.Context, from, name string) (int, int64, error) {
	want, err := l.count(ctx, l.from, from)
	if err != nil {
		return 0, 0, err
	}
	got, err := l.count(ctx, l.to, name)
	if err != nil {
		return 0, 0, err
	}
	var rows int64
	for table, n := range want {
		if m, ok := got[table]; !ok || m != n {
			return 0, 0, fmt.Errorf("load into database %s: table %s has %d rows, and not %d", name, table, m, n)
		}
		rows += n
	}
	return len(want), rows, nil
}

// count is the rows of a database's tables, by table.
func (l loader) count(ctx context.Context, socket, database string) (map[string]int64, error) {
	all, err := tables(ctx, socket, database)
	if err != nil {
		return nil, err
	}
	n, err := rowsOf(ctx, socket, all)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for table, rows := range n {
		out[strings.TrimPrefix(table, database+".")] = rows
	}
	return out, nil
}

// replace puts the tables of the scratch mariadbd in the place of the app's, in
// one statement, once all of them are loaded. Those that were there are kept
// under another database's name.
func (l loader) replace(ctx context.Context, name string, now time.Time) (Loaded, error) {
	stamp := now.UTC().Format("20060102_150405")
	staged, kept := shorten(name, "_restored_"+stamp), shorten(name, "_before_"+stamp)
	l.say(Progress{Step: "loading into database " + staged})
	if err := l.begin(ctx, name, staged); err != nil {
		return Loaded{}, err
	}
	done := Loaded{Database: name, Kept: kept}
	restored, err := l.views(ctx, l.from, name)
	if err == nil {
		err = l.copy(ctx, l.dump(ctx, name, without(name, restored, "--skip-triggers")...), staged)
	}
	if err == nil {
		done.Tables, done.Rows, err = l.compare(ctx, name, staged)
	}
	if err == nil {
		err = l.create(ctx, name, kept)
	}
	if err != nil {
		return Loaded{}, errors.Join(err, l.drop(ctx, staged))
	}
	if err := l.swap(ctx, name, staged, kept); err != nil {
		return Loaded{}, errors.Join(err, l.drop(ctx, staged), l.dropEmpty(ctx, kept))
	}
	return done, errors.Join(l.programs(ctx, name, restored), l.drop(ctx, staged))
}

// shorten makes a name of at most 64 characters.
func shorten(name, end string) string { return name[:min(len(name), 64-len(end))] + end }

// view is one of a database's, as information_schema shows it; texts but the
// name are SQL.
type view struct{ name, definition, algorithm, definer, security, check string }

func (l loader) views(ctx context.Context, socket, database string) ([]view, error) {
	rows, err := query(ctx, socket, "SELECT TO_BASE64(TABLE_NAME), TO_BASE64(VIEW_DEFINITION), ALGORITHM, TO_BASE64(DEFINER), SECURITY_TYPE, CHECK_OPTION "+
		"FROM information_schema.VIEWS WHERE TABLE_SCHEMA="+quote(database, '\''))
	if err != nil {
		return nil, err
	}
	var out []view
	for _, r := range rows {
		v := view{algorithm: r[2], security: r[4], check: r[5]}
		for i, to := range map[int]*string{0: &v.name, 1: &v.definition, 3: &v.definer} {
			if *to, err = unbase64(r[i]); err != nil {
				return nil, err
			}
		}
		out = append(out, v)
	}
	return out, nil
}

// create is the statement that makes v, which was database from's, in database
// to. MariaDB keeps a view's tables with their database's name.
func (v view) create(from, to string) string {
	sql := fmt.Sprintf("CREATE ALGORITHM=%s DEFINER=%s SQL SECURITY %s VIEW %s.%s AS %s", v.algorithm, account(v.definer), v.security,
		quote(to, '`'), quote(v.name, '`'), strings.ReplaceAll(v.definition, quote(from, '`')+".", quote(to, '`')+"."))
	if v.check != "NONE" {
		sql += " WITH " + v.check + " CHECK OPTION"
	}
	return sql
}

// copyViews makes the views. One may show another, so that it is tried until
// none is made any more; those that are left showed what was not there at that moment.
func (l loader) copyViews(ctx context.Context, from, to string, views []view) {
	for made := true; made && len(views) > 0; {
		made = false
		views = slices.DeleteFunc(views, func(v view) bool {
			_, err := query(ctx, l.to, v.create(from, to))
			made = made || err == nil
			return err == nil
		})
	}
	for _, v := range views {
		l.warn("view " + v.name + " is left out: what it shows was not there at that moment")
	}
}

// copyTriggers makes the triggers; a dump of them would name the table's
// database as their author did.
func (l loader) copyTriggers(ctx context.Context, from, to string) error {
	rows, err := query(ctx, l.from, "SELECT TO_BASE64(TRIGGER_NAME), ACTION_TIMING, EVENT_MANIPULATION, TO_BASE64(EVENT_OBJECT_TABLE), TO_BASE64(ACTION_STATEMENT), TO_BASE64(DEFINER), SQL_MODE "+
		"FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA="+quote(from, '\'')+" ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER")
	if err != nil {
		return err
	}
	for _, r := range rows {
		for _, i := range []int{0, 3, 4, 5} {
			if r[i], err = unbase64(r[i]); err != nil {
				return err
			}
		}
		sql := fmt.Sprintf("USE %s;\nSET sql_mode=%s;\nDELIMITER %s\nCREATE DEFINER=%s TRIGGER %s %s %s ON %s FOR EACH ROW %s\n%s\n",
			quote(to, '`'), quote(r[6], '\''), delimiter, account(r[5]), quote(r[0], '`'), r[1], r[2], quote(r[3], '`'), r[4], delimiter)
		if _, err := query(ctx, l.to, sql); err != nil {
			return fmt.Errorf("make trigger %s: %w", r[0], err)
		}
	}
	return nil
}

// delimiter ends a statement that has several in it.
const delimiter = "$trivet$"

// account writes USER@HOST, as information_schema shows it, as SQL.
func account(text string) string {
	user, host := text, "%"
	if i := strings.LastIndexByte(text, '@'); i >= 0 {
		user, host = text[:i], text[i+1:]
	}
	return quote(user, '`') + "@" + quote(host, '`')
}

// without adds to the words of a dump those that leave out the views.
func without(database string, views []view, words ...string) []string {
	for _, v := range views {
		words = append(words, "--ignore-table="+database+"."+v.name)
	}
	return words
}

// swap moves the app's tables away and the staged ones in. Triggers and views
// cannot be moved between databases: those that are there go before, those of
// the restored moment come after.
func (l loader) swap(ctx context.Context, name, staged, kept string) error {
	old, err := tables(ctx, l.to, name)
	if err != nil {
		return err
	}
	fresh, err := tables(ctx, l.to, staged)
	if err != nil {
		return err
	}
	views, err := l.views(ctx, l.to, name)
	if err != nil {
		return err
	}
	triggers, err := query(ctx, l.to, "SELECT TO_BASE64(TRIGGER_NAME) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA="+quote(name, '\''))
	if err != nil {
		return err
	}
	var sql strings.Builder
	for _, v := range views {
		fmt.Fprintf(&sql, "DROP VIEW %s.%s;\n", quote(name, '`'), quote(v.name, '`'))
	}
	for _, t := range triggers {
		trigger, err := unbase64(t[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(&sql, "DROP TRIGGER %s.%s;\n", quote(name, '`'), quote(trigger, '`'))
	}
	var moves []string
	for _, t := range old {
		moves = append(moves, move(t[1], name, kept))
	}
	for _, t := range fresh {
		moves = append(moves, move(t[1], staged, name))
	}
	if len(moves) > 0 {
		sql.WriteString("RENAME TABLE " + strings.Join(moves, ", ") + ";\n")
	}
	_, err = query(ctx, l.to, sql.String())
	return err
}

func move(table, from, to string) string {
	t := quote(table, '`')
	return quote(from, '`') + "." + t + " TO " + quote(to, '`') + "." + t
}

// programs loads views, triggers, routines and events.
func (l loader) programs(ctx context.Context, name string, restored []view) error {
	var routines strings.Builder
	for _, kind := range []string{"PROCEDURE", "FUNCTION"} {
		rows, err := query(ctx, l.to, "SELECT TO_BASE64(ROUTINE_NAME) FROM information_schema.ROUTINES WHERE ROUTINE_TYPE='"+kind+"' AND ROUTINE_SCHEMA="+quote(name, '\''))
		if err != nil {
			return err
		}
		for _, r := range rows {
			routine, err := unbase64(r[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(&routines, "DROP %s %s.%s;\n", kind, quote(name, '`'), quote(routine, '`'))
		}
	}
	if _, err := query(ctx, l.to, "SELECT 1;\n"+routines.String()); err != nil {
		return err
	}
	l.copyViews(ctx, name, name, slices.Clone(restored))
	if err := l.copyTriggers(ctx, name, name); err != nil {
		return err
	}
	return l.copy(ctx, l.dump(ctx, name, without(name, restored, "--no-create-info", "--no-data", "--skip-triggers", "--routines", "--events")...), name)
}

// dropEmpty removes a database that holds no table.
func (l loader) dropEmpty(ctx context.Context, name string) error {
	all, err := tables(ctx, l.to, name)
	if err != nil || len(all) > 0 {
		return err
	}
	return l.drop(ctx, name)
}
