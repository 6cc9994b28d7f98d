package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"trivet/internal/part"
)

// drill restores the newest backup into a scratch mariadbd up to a moment at
// which this server's rows were counted, checks every table, and compares.
type drill struct {
	rebuilder
	live string // socket of this server's mariadbd
	at   func() uint64
}

// run returns what is to be recorded; its Error says why the restore is not verified.
func (d drill) run(ctx context.Context) part.BackupDrill {
	begun := time.Now()
	out := part.BackupDrill{At: begun.UTC().Truncate(time.Second)}
	if err := d.rehearse(ctx, &out); err != nil {
		out.Error = err.Error()
	}
	out.Took = time.Since(begun)
	return out
}

func (d drill) rehearse(ctx context.Context, out *part.BackupDrill) error {
	d.say(Progress{Step: "counting the live rows"})
	all, err := tables(ctx, d.live, "")
	if err != nil {
		return err
	}
	want, at, err := counts(ctx, d.live, snapshotGTID, all)
	if err != nil {
		return err
	}
	g, err := parseGTID(at)
	if err != nil {
		return fmt.Errorf("read the position of the live rows: %w", err)
	}
	if err := d.archived(ctx, g.seq); err != nil {
		return err
	}
	s, done, err := d.rebuild(ctx, Target{To: at})
	if err != nil {
		return err
	}
	defer s.remove()
	out.Backup, out.GTID = done.Backup, done.GTID
	d.say(Progress{Step: "checking the tables"})
	if err := checkTables(ctx, s.socket(), all); err != nil {
		return err
	}
	got, err := rowsOf(ctx, s.socket(), all)
	if err != nil {
		return err
	}
	for _, n := range got {
		out.Rows += n
	}
	out.Tables = len(got)
	return compareCounts(want, got)
}

// archived waits until the log is archived up to seq.
func (d drill) archived(ctx context.Context, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for d.at() < seq {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the archive of the binary log stands at %s and does not come to %s", position(d.at()), position(seq))
		case <-tick.C:
		}
	}
	return nil
}

// compareCounts names the tables whose rows differ.
func compareCounts(want, got map[string]int64) error {
	var errs []error
	for table, n := range want {
		if m, ok := got[table]; !ok || m != n {
			errs = append(errs, fmt.Errorf("table %s has %d rows, and not %d", table, m, n))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// checkTables runs CHECK TABLE on each.
func checkTables(ctx context.Context, socket string, all [][2]string) error {
	var sql strings.Builder
	for _, t := range all {
		fmt.Fprintf(&sql, "CHECK TABLE %s.%s;\n", quote(t[0], '`'), quote(t[1], '`'))
	}
	if len(all) == 0 {
		return nil
	}
	rows, err := query(ctx, socket, sql.String())
	if err != nil {
		return err
	}
	for _, r := range rows {
		if len(r) == 4 && (strings.EqualFold(r[2], "error") || r[2] == "status" && r[3] != "OK" && !strings.Contains(r[3], "doesn't support")) {
			return fmt.Errorf("check table %s: %s", r[0], r[3])
		}
	}
	return nil
}
