package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/go-sql-driver/mysql"

	"trivet/e2e/measure"
)

const (
	rows    = 10_000 // that are read and changed
	warmUp  = 200 * time.Millisecond
	addMost = 60 // µs that the router may add to a local round trip: the goal
)

// clients are how many ask at the same time.
var clients = []int{1, 4, 16, 64}

// load is what one load found.
type load struct {
	Nodes     int     `json:"nodes"`
	Work      string  `json:"work"`
	Clients   int     `json:"clients"`
	Way       string  `json:"way"`
	PerSecond float64 `json:"per_second"` // transactions
	Median    float64 `json:"median"`     // milliseconds
	P99       float64 `json:"p99"`        // milliseconds
	Conflicts int     `json:"conflicts"`  // transactions that were rolled back, for another came first
}

// work is a small transaction.
type work struct {
	name string
	do   func(ctx context.Context, c *sql.Conn, id int64) error
}

var works = []work{
	{"point read", func(ctx context.Context, c *sql.Conn, id int64) error {
		var v int64
		return c.QueryRowContext(ctx, "SELECT v FROM bench_rows WHERE id = ?", id).Scan(&v)
	}},
	{"insert", func(ctx context.Context, c *sql.Conn, id int64) error {
		_, err := c.ExecContext(ctx, "INSERT INTO bench_log (a, b) VALUES (?, ?)", id, "a row of about a hundred bytes, as those of small tables are: some text, a number, a time")
		return err
	}},
	{"read-modify-write", func(ctx context.Context, c *sql.Conn, id int64) error {
		tx, err := c.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		var v int64
		if err := tx.QueryRowContext(ctx, "SELECT v FROM bench_rows WHERE id = ?", id).Scan(&v); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE bench_rows SET v = ? WHERE id = ?", v+1, id); err != nil {
			return err
		}
		return tx.Commit()
	}},
}

// prepare makes the tables, with some 64 MB in them.
func (b *bench) prepare(ctx context.Context) error {
	writer, err := b.writer(ctx)
	if err != nil {
		return err
	}
	db, err := b.open(b.router("router", writer))
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	statements := []string{
		"CREATE TABLE bench_rows (id BIGINT PRIMARY KEY, v BIGINT NOT NULL)",
		"CREATE TABLE bench_log (id BIGINT AUTO_INCREMENT PRIMARY KEY, a BIGINT NOT NULL, b VARCHAR(200) NOT NULL)",
		"CREATE TABLE bench_ack (id BIGINT PRIMARY KEY)",
		"CREATE TABLE bench_bulk (id BIGINT AUTO_INCREMENT PRIMARY KEY, b VARCHAR(4000) NOT NULL)",
		fmt.Sprintf("INSERT INTO bench_rows SELECT seq, 0 FROM seq_1_to_%d", rows),
	}
	for range 16 {
		statements = append(statements, "INSERT INTO bench_bulk (b) SELECT HEX(RANDOM_BYTES(1000)) FROM seq_1_to_2000")
	}
	for _, q := range statements {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("make tables: %w", err)
		}
	}
	return nil
}

// throughput is measured with all three nodes: at the writer past the router
// and through it, and from another server.
func (b *bench) throughput(ctx context.Context) error {
	writer, err := b.writer(ctx)
	if err != nil {
		return err
	}
	return b.loads(ctx, 3, b.socket(writer), b.routerSocket(writer), b.router("router, from another server", other(writer)))
}

// loads runs every kind of load by every way.
func (b *bench) loads(ctx context.Context, nodes int, ways ...way) error {
	for _, w := range works {
		for _, n := range clients {
			for _, by := range ways {
				say("%d nodes: %s, %d clients, %s", nodes, w.name, n, by.name)
				l, err := b.load(ctx, by, w, n)
				if err != nil {
					return fmt.Errorf("%s by %d clients, %s: %w", w.name, n, by.name, err)
				}
				l.Nodes = nodes
				b.report.Loads = append(b.report.Loads, l)
			}
		}
	}
	return nil
}

// load runs one, and first for a moment without being looked at.
func (b *bench) load(ctx context.Context, by way, w work, n int) (load, error) {
	l := load{Work: w.name, Clients: n, Way: by.name}
	conns := make([]*sql.Conn, n)
	for i := range conns {
		db, err := b.open(by)
		if err != nil {
			return l, err
		}
		defer func() { _ = db.Close() }()
		if conns[i], err = db.Conn(ctx); err != nil {
			return l, err
		}
		defer func() { _ = conns[i].Close() }() // the pool would not
	}
	begun := time.Now().Add(warmUp)
	until := begun.Add(b.each)
	took, conflicts, errs := make([][]time.Duration, n), make([]int, n), make([]error, n)
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { took[i], conflicts[i], errs[i] = client(ctx, c, w, begun, until) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return l, err
	}
	all := slices.Concat(took...)
	if len(all) == 0 {
		return l, errors.New("no transaction ended")
	}
	slices.Sort(all)
	for _, n := range conflicts {
		l.Conflicts += n
	}
	l.PerSecond = float64(len(all)) / b.each.Seconds()
	l.Median, l.P99 = millis(at(all, 0.5)), millis(at(all, 0.99))
	return l, nil
}

// client does one transaction after the other, and returns how long each of those took that ended between begun and until.
func client(ctx context.Context, c *sql.Conn, w work, begun, until time.Time) (took []time.Duration, conflicts int, err error) {
	for {
		started := time.Now()
		err := w.do(ctx, c, 1+rand.Int64N(rows))
		ended := time.Now()
		switch counted := ended.After(begun); {
		case ended.After(until):
			return took, conflicts, nil
		case conflict(err):
			conflicts++
		case err != nil:
			return nil, 0, err
		case counted:
			took = append(took, ended.Sub(started))
		}
	}
}

// conflict reports whether a transaction was rolled back for another came first.
func conflict(err error) bool {
	var said *mysql.MySQLError
	return errors.As(err, &said) && (said.Number == 1213 || said.Number == 1020 || said.Number == 1205)
}

func millis(d time.Duration) float64 { return d.Seconds() * 1e3 }

// at is the value below which a share of all lies.
func at(sorted []time.Duration, share float64) time.Duration {
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)]
}

const (
	roundTrips = 40  // in turn by each way
	inRow      = 200 // statements of one turn
)

// roundTrip measures what one statement takes that does nothing, by each way in
// turn, so that what else the machine does meanwhile falls upon all.
func (b *bench) roundTrip(ctx context.Context) error {
	say("round trips")
	writer, err := b.writer(ctx)
	if err != nil {
		return err
	}
	ways := []way{b.socket(writer), b.routerSocket(writer), b.router("router, TCP", writer), b.router("router, from another server", other(writer))}
	ways[1].name = "router, unix socket"
	conns := make([]*sql.Conn, len(ways))
	for i, w := range ways {
		db, err := b.open(w)
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		if conns[i], err = db.Conn(ctx); err != nil {
			return err
		}
		defer func() { _ = conns[i].Close() }() // the pool would not
	}
	took := make([][]time.Duration, len(ways))
	for range roundTrips {
		for i, c := range conns {
			for range inRow {
				begun := time.Now()
				if _, err := c.ExecContext(ctx, "DO 1"); err != nil {
					return err
				}
				took[i] = append(took[i], time.Since(begun))
			}
		}
	}
	b.roundTripFigures(ways, took)
	return nil
}

func (b *bench) roundTripFigures(ways []way, took [][]time.Duration) {
	const group = "round trip of one client, median"
	medians := make([]float64, len(ways))
	for i, w := range ways {
		slices.Sort(took[i])
		medians[i] = at(took[i], 0.5).Seconds() * 1e6
		b.report.Add(group, w.name, medians[i], measure.Micros, 0)
	}
	b.report.Add(group, "added by the router, unix socket", medians[1]-medians[0], measure.Micros, addMost)
	b.report.Add(group, "added by the router, TCP", medians[2]-medians[0], measure.Micros, addMost)
	b.report.Add(group, "added by the tunnel to another server", medians[3]-medians[2], measure.Micros, 0)
}

// printLoads writes a line for each kind of load, with a pair of columns for each way.
func printLoads(w io.Writer, all []load) error {
	if len(all) == 0 {
		return nil
	}
	var names []string
	for _, l := range all {
		if !slices.Contains(names, l.Way) {
			names = append(names, l.Way)
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprint(t, "\nNODES\tTRANSACTION\tCLIENTS")
	for _, n := range names {
		_, _ = fmt.Fprintf(t, "\t%s /s\tp99 ms", n)
	}
	last := load{}
	for _, l := range all {
		if l.Nodes != last.Nodes || l.Work != last.Work || l.Clients != last.Clients {
			_, _ = fmt.Fprintf(t, "\n%d\t%s\t%d", l.Nodes, l.Work, l.Clients)
		}
		_, _ = fmt.Fprintf(t, "\t%.0f\t%.1f", l.PerSecond, l.P99)
		last = l
	}
	_, _ = fmt.Fprintln(t)
	return t.Flush()
}
