package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"trivet/database/backup"
	"trivet/lab"
	"trivet/node"
)

var dbBackupCommand = command{
	name: "db backup", summary: "make a full backup now; return when it lies on the other servers",
	example: "trivet db backup",
	flags:   taskFlags("now", backedUp),
}

var dbDrillCommand = command{
	name: "db drill", summary: "rehearse a restore of the newest backup, check all tables and count all rows",
	example: "trivet db drill",
	flags:   taskFlags("drill", drilled),
}

// taskFlags are the words of a task that needs no others.
func taskFlags(task string, words func(backup.Outcome) string) func(*flag.FlagSet) func(context.Context, *env, []string) error {
	return func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			return backupTask(ctx, e, *name, *asJSON, task, backup.Order{}, words)
		}
	}
}

// backupTask has the server that does the work of backups do a task, and shows how it goes.
func backupTask(ctx context.Context, e *env, name string, asJSON bool, task string, o backup.Order, words func(backup.Outcome) string) error {
	l, err := openLab(name)
	if err != nil {
		return err
	}
	c, err := backupHolder(ctx, l)
	if err != nil {
		return err
	}
	p := newProgress(e.out, l.Servers)
	told := ""
	out, err := c.Backup(ctx, task, o, func(now backup.Progress) {
		if text := stepWords(now); text != told && !asJSON {
			p.say("%s: %s", c.Server, text)
			told = text
		}
	})
	if err != nil {
		return err
	}
	for _, w := range out.Warnings {
		_, _ = fmt.Fprintf(e.err, "warning: %s\n", w)
	}
	if asJSON {
		return printJSON(e.out, out)
	}
	_, err = fmt.Fprintln(e.out, words(out))
	return err
}

// backupHolder is the server that does the work of backups now.
func backupHolder(ctx context.Context, l *lab.Lab) (*node.Client, error) {
	a, err := answerers(l)
	if err != nil {
		return nil, err
	}
	if err := a.some(); err != nil {
		return nil, err
	}
	list, err := firstAnswer(ctx, a.clients, func(c *node.Client) (backup.Listing, error) { return c.Backups(ctx) })
	if err != nil {
		return nil, err
	}
	for _, c := range a.clients {
		if c.Server == list.Role.Holder {
			return c, nil
		}
	}
	return nil, hinted{errors.New("no server does the work of backups now"), []string{
		"one does that is synced and not the writer: `trivet db status` shows which are",
		"with database.backup.every: 0s none does",
	}}
}

func stepWords(p backup.Progress) string {
	if p.Total == 0 {
		return p.Step
	}
	percent := fmt.Sprintf(" %d %%", 100*p.Done/p.Total)
	if p.Total < 1<<20 {
		return p.Step + percent
	}
	return fmt.Sprintf("%s%s (%s of %s)", p.Step, percent, bytesWords(p.Done), bytesWords(p.Total))
}

// bytesWords writes a size for people.
func bytesWords(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", (n+1023)>>10)
}

func backedUp(o backup.Outcome) string {
	return fmt.Sprintf("backup %s at %s: %s (%s before compression), in %.1f s", o.Backup.ID, o.Backup.GTID, bytesWords(o.Backup.Size), bytesWords(o.Backup.Raw), o.Took.Seconds())
}

func drilled(o backup.Outcome) string {
	return fmt.Sprintf("verified: backup %s restored up to %s, %s checked, all %d rows there, in %.1f s",
		o.Drill.Backup, o.Drill.GTID, counted(int64(o.Drill.Tables), "table"), o.Drill.Rows, o.Took.Seconds())
}

var dbRestoreCommand = command{
	name: "db restore", summary: "bring the database of a moment back, beside the present one or in its place",
	example: "trivet db restore --to \"2026-11-23 14:32:05\"                  # into a new database\n" +
		"trivet db restore --before-gtid 77-1-4711 --as rescued\n" +
		"trivet db restore --to \"2026-11-23 14:32:05\" --replace foobar # the app's own tables; the present ones are kept aside",
	flags: restoreFlags,
}

func restoreFlags(fs *flag.FlagSet) func(context.Context, *env, []string) error {
	name := labFlag(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	to := fs.String("to", "", "`time` to go back to, on this machine's clock: \"2026-11-23 14:32:05\"; what was committed at or after it is not there")
	var o backup.Order
	fs.StringVar(&o.To, "to-gtid", "", "`GTID` of the last transaction to have")
	fs.StringVar(&o.Before, "before-gtid", "", "`GTID` of the first transaction not to have")
	fs.StringVar(&o.As, "as", "", "`name` of the new database (default the app's with the time appended)")
	fs.StringVar(&o.Replace, "replace", "", "put the tables in the place of those of this `database`, the app's own; those are kept under another name")
	keyFile := fs.String("key", "", "`file` with the key that sealed the copies, if it is not the site's present one")
	return func(ctx context.Context, e *env, args []string) error {
		if err := noArgs(args); err != nil {
			return err
		}
		var err error
		if o.Time, err = parseMoment(*to); err != nil {
			return err
		}
		if o.As != "" && o.Replace != "" {
			return usageError{"db restore: --as and --replace exclude each other"}
		}
		if (*to != "" && (o.To != "" || o.Before != "")) || (o.To != "" && o.Before != "") {
			return usageError{"db restore: name one moment: --to, --to-gtid or --before-gtid"}
		}
		if *keyFile != "" {
			data, err := os.ReadFile(*keyFile)
			if err != nil {
				return fmt.Errorf("read key: %w", err)
			}
			o.Key = string(data)
		}
		return backupTask(ctx, e, *name, *asJSON, "restore", o, restored)
	}
}

// parseMoment reads a time; "" is none.
func parseMoment(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.DateTime, "2006-01-02 15:04", time.RFC3339} {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usageError{fmt.Sprintf("%q is not a time such as \"2026-11-23 14:32:05\"", text)}
}

func restored(o backup.Outcome) string {
	text := fmt.Sprintf("database %s holds %s with %s as of transaction %s (backup %s and %s of the log), in %.1f s",
		o.Loaded.Database, counted(int64(o.Loaded.Tables), "table"), counted(o.Loaded.Rows, "row"), o.Rebuilt.GTID, o.Rebuilt.Backup,
		counted(int64(o.Rebuilt.Groups), "transaction"), o.Took.Seconds())
	if o.Loaded.Kept != "" {
		text += "\nwhat was there before is in database " + o.Loaded.Kept
	}
	return text
}

var dbBackupsCommand = command{
	name: "db backups", args: "[key]", summary: "list what can be restored and where its copies are; key shows the key that opens them",
	example: "trivet db backups\ntrivet db backups --json | jq .archive\ntrivet db backups key > somewhere-else   # without it the copies are worth nothing",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, e *env, args []string) error {
			key := len(args) == 1 && args[0] == "key"
			if !key {
				if err := noArgs(args); err != nil {
					return err
				}
			}
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			if key {
				return backupKey(ctx, e, l)
			}
			return backups(ctx, e, l, *asJSON)
		}
	},
}

func backupKey(ctx context.Context, e *env, l *lab.Lab) error {
	a, err := answerers(l)
	if err != nil {
		return err
	}
	if err := a.some(); err != nil {
		return err
	}
	key, err := firstAnswer(ctx, a.clients, func(c *node.Client) (string, error) { return c.BackupKey(ctx) })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, "# opens the database's copies of this site; keep it where none of its servers is\n%s\n", key)
	return err
}

// backups shows what the server that does the work says, or else any.
func backups(ctx context.Context, e *env, l *lab.Lab, asJSON bool) error {
	a, err := answerers(l)
	if err != nil {
		return err
	}
	if err := a.some(); err != nil {
		return err
	}
	list, err := firstAnswer(ctx, a.clients, func(c *node.Client) (backup.Listing, error) { return c.Backups(ctx) })
	if err != nil {
		return err
	}
	for _, c := range a.clients {
		if c.Server == list.Role.Holder && c.Server != list.Server {
			if own, err := c.Backups(ctx); err == nil {
				list = own
			}
		}
	}
	if asJSON {
		return printJSON(e.out, list)
	}
	return printBackups(e, list, time.Now())
}

func printBackups(e *env, l backup.Listing, now time.Time) error {
	t := table{right: []bool{false, false, false, true}, colour: terminal(e.out)}
	t.head("BACKUP", "AGE", "GTID", "SIZE", "COPIES", "VERIFIED")
	for _, b := range l.Backups {
		verified, copies := "-", strings.Join(b.Copies, " ")
		if !b.Verified.IsZero() {
			verified = age(now, b.Verified) + " ago"
		}
		for _, p := range b.Partial {
			copies += " (" + p + " lacks pieces)"
		}
		if b.Problem != "" {
			copies = b.Problem
		}
		when := "-"
		if !b.At.IsZero() {
			when = age(now, b.At)
		}
		t.row(cell{text: b.ID}, cell{text: when}, cell{text: cmp.Or(b.GTID, "-")}, cell{text: bytesWords(b.Size)}, cell{text: cmp.Or(copies, "none is whole")}, cell{text: verified})
	}
	if len(l.Backups) == 0 {
		_, _ = fmt.Fprintln(e.out, "there is no backup yet; `trivet db backup` makes one")
	} else if err := t.write(e.out, ""); err != nil {
		return err
	}
	_, err := fmt.Fprintln(e.out, strings.Join(archiveWords(l, now), "\n"))
	return err
}

func archiveWords(l backup.Listing, now time.Time) []string {
	var out []string
	if a := l.Archive; !a.To.IsZero() {
		out = append(out, fmt.Sprintf("any moment from %s to %s (%s, %s ago) can be restored; archive of the binary log: %s, %s",
			a.From.Local().Format(time.DateTime), a.To.Local().Format(time.DateTime), a.GTID, age(now, a.To), counted(int64(a.Pieces), "piece"), bytesWords(a.Size)))
	}
	if l.Archive.Gap != "" {
		out = append(out, "gap: "+l.Archive.Gap)
	}
	if l.Archive.Stuck != "" {
		out = append(out, "the archive stands still: "+l.Archive.Stuck)
	}
	if f := l.Role.Failed; f.At.After(l.Role.Last.At) {
		out = append(out, fmt.Sprintf("the last attempt, %s ago, failed: %s", age(now, f.At), f.Error))
	}
	switch d := l.Role.Drill; {
	case d.At.IsZero():
		out = append(out, "no restore was rehearsed yet; `trivet db drill` does it")
	case d.Error != "":
		out = append(out, fmt.Sprintf("the last rehearsal, %s ago, failed: %s", age(now, d.At), d.Error))
	}
	for _, name := range sortedKeys(l.Away) {
		out = append(out, fmt.Sprintf("%s does not answer: %s", name, l.Away[name]))
	}
	return append(out, fmt.Sprintf("made by %s; sealed by %s", cmp.Or(l.Role.Holder, "no server now"), l.Key))
}

func sortedKeys(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// age writes how long ago a moment was.
func age(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}
