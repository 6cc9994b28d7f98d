package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"trivet/database/router"
	"trivet/database/router/digest"
	"trivet/internal/part"
	"trivet/lab"
)

var dbQueriesCommand = command{
	name: "db queries", summary: "show what the app asks of its database, by the form of its statements; exit 1 if a server cannot be asked",
	example: "trivet db queries\ntrivet db queries --by p95 --most 50\ntrivet db queries --slow\ntrivet db queries --json | jq '.digests[0]'",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		q := &queryView{}
		fs.StringVar(&q.by, "by", "time", "the most of this `figure` first: time, count, errors, rows, mean, p95 or max")
		fs.IntVar(&q.most, "most", 20, "show at most so `many`")
		fs.BoolVar(&q.slow, "slow", false, "show the last statements that were slow instead")
		asJSON := fs.Bool("json", false, "print JSON, with all that is known")
		return func(ctx context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			if orders[q.by] == nil {
				return usageError{fmt.Sprintf("db queries: there is no figure %q; `trivet db queries --help` lists them", q.by)}
			}
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			all := inspectQueries(ctx, l)
			if *asJSON {
				err = printJSON(e.out, all)
			} else {
				err = q.print(e.out, all, terminal(e.out))
			}
			if err == nil && len(all.Errors) > 0 {
				return errSaid
			}
			return err
		}
	},
}

// queries are the statements of all servers' apps.
type queries struct {
	digest.Report
	Errors map[string]string `json:"errors,omitempty"` // by server: why it cannot be asked
}

// queryView is what is shown of them.
type queryView struct {
	by   string
	most int
	slow bool
}

// orders have for each figure what is compared.
var orders = map[string]func(digest.Digest) float64{
	"time":   func(d digest.Digest) float64 { return float64(d.Time) },
	"count":  func(d digest.Digest) float64 { return float64(d.Count) },
	"errors": func(d digest.Digest) float64 { return float64(d.Errors) },
	"rows":   func(d digest.Digest) float64 { return float64(d.Rows) },
	"mean":   func(d digest.Digest) float64 { return float64(mean(d.Totals)) },
	"p95":    func(d digest.Digest) float64 { return float64(p95(d)) },
	"max":    func(d digest.Digest) float64 { return float64(d.Max) },
}

// inspectQueries asks all servers' routers at once: each knows the statements of its own server's app.
func inspectQueries(ctx context.Context, l *lab.Lab) queries {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	reports, errs := make([]digest.Report, len(l.Servers)), make([]error, len(l.Servers))
	var wg sync.WaitGroup
	for i, server := range l.Servers {
		wg.Go(func() { reports[i], errs[i] = inspectRouter(ctx, l, server) })
	}
	wg.Wait()
	all := queries{Errors: map[string]string{}}
	var known []digest.Report
	for i, err := range errs {
		if err != nil {
			all.Errors[l.Servers[i]] = strings.TrimPrefix(err.Error(), l.Servers[i]+": ")
			continue
		}
		known = append(known, reports[i])
	}
	all.Report = digest.Merge(known...)
	return all
}

func inspectRouter(ctx context.Context, l *lab.Lab, server string) (digest.Report, error) {
	data, err := client(l, server).Inspect(ctx, part.Router)
	if err != nil {
		return digest.Report{}, err
	}
	var s router.Status
	return s.Queries, json.Unmarshal(data, &s)
}

func (q *queryView) print(w io.Writer, all queries, colour bool) error {
	var err error
	if q.slow {
		err = q.slowest(w, all, colour)
	} else {
		err = q.digests(w, all, colour)
	}
	for _, server := range slices.Sorted(maps.Keys(all.Errors)) {
		_, _ = fmt.Fprintf(w, "%s cannot be asked: %s\n", server, all.Errors[server])
	}
	return err
}

// digests prints a line for each form of statement, and one for those that are not shown.
func (q *queryView) digests(w io.Writer, all queries, colour bool) error {
	if all.All.Count == 0 {
		_, err := fmt.Fprintln(w, "the app has asked nothing yet")
		return err
	}
	slices.SortStableFunc(all.Digests, func(a, b digest.Digest) int { return cmp.Compare(orders[q.by](b), orders[q.by](a)) })
	t := &table{colour: colour, right: []bool{true, true, true, true, true, true, true, true}}
	t.head("TIME", "SHARE", "COUNT", "ERRORS", "ROWS", "MEAN", "P95", "MAX", "STATEMENT")
	others := all.Others
	for i, d := range all.Digests {
		if i >= q.most {
			others.Add(d.Totals)
			continue
		}
		t.row(queryFigures(d.Totals, all.All, brief(p95(d)), d.Text)...)
	}
	if others.Count > 0 {
		t.row(queryFigures(others, all.All, "", "(others)")...)
	}
	if err := t.write(w, ""); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d statements since %s: half took up to %s, 95 in 100 up to %s, 99 up to %s; %d took longer than %s\n",
		all.All.Count, all.Since.UTC().Format("2006-01-02 15:04:05 UTC"),
		brief(digest.Quantile(all.Times, 0.5)), brief(digest.Quantile(all.Times, 0.95)), brief(digest.Quantile(all.Times, 0.99)), all.All.Slow, all.Slow)
	return err
}

func queryFigures(d, all digest.Totals, p95, text string) []cell {
	failed := cell{text: strconv.FormatUint(d.Errors, 10)}
	if d.Errors > 0 {
		failed.colour = red
	}
	return []cell{
		{text: brief(d.Time)},
		{text: fmt.Sprintf("%.1f %%", 100*float64(d.Time)/float64(max(all.Time, 1)))},
		{text: strconv.FormatUint(d.Count, 10)},
		failed,
		{text: strconv.FormatUint(d.Rows, 10)},
		{text: brief(mean(d))},
		{text: p95},
		{text: brief(d.Max)},
		{text: text},
	}
}

// slowest prints the last slow statements, the last one first.
func (q *queryView) slowest(w io.Writer, all queries, colour bool) error {
	if len(all.Slowest) == 0 {
		_, err := fmt.Fprintf(w, "no statement took longer than %s\n", all.Slow)
		return err
	}
	t := &table{colour: colour, right: []bool{false, true}}
	t.head("ENDED", "TOOK", "RESULT", "STATEMENT")
	for _, s := range all.Slowest[:min(len(all.Slowest), q.most)] {
		result := cell{text: "ok"}
		if s.Failed {
			result = cell{text: "failed", colour: red}
		}
		t.row(cell{text: s.At.UTC().Format("2006-01-02 15:04:05")}, cell{text: brief(s.Took)}, result, cell{text: s.Text})
	}
	return t.write(w, "")
}

func mean(t digest.Totals) time.Duration { return t.Time / time.Duration(max(t.Count, 1)) }

// p95 is the time that 95 in 100 did not exceed; the slowest one is known exactly.
func p95(d digest.Digest) time.Duration { return min(digest.Quantile(d.Times, 0.95), d.Max) }

// brief is a time in three digits.
func brief(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Hour:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f h", d.Hours())
}
