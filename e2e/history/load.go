package history

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Times of one client.
const (
	dialLimit = 4 * time.Second
	opLimit   = 10 * time.Second // then its outcome is unknown
	afterFail = 20 * time.Millisecond
)

// Load is a load of transactions. Its zero values are taken by their defaults.
type Load struct {
	Servers  []string                                                   // a set of clients for each
	Dial     func(ctx context.Context, server string) (net.Conn, error) // to the address for all statements, on a server
	DialRead func(ctx context.Context, server string) (net.Conn, error) // to the one for reads; nil: there is none

	User     string // of the database, as Password
	Password string
	Database string
	Every    time.Duration // from one operation of a client to its next; 40 ms

	begun time.Time
	next  atomic.Int64
	acked atomic.Int64 // the operation that was acknowledged last

	mu  sync.Mutex
	ops []Op
}

// Tables are what every load begins with.
var Tables = Start{Accounts: 10, Registers: 8, Balance: 1000}

// Prepare makes the tables anew, and starts the clock.
func (l *Load) Prepare(ctx context.Context) error {
	l.begun = time.Now()
	db, err := l.open(l.Servers[0], l.Dial, true)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for _, q := range []string{
		"DROP TABLE IF EXISTS soak_journal, soak_account, soak_register",
		"CREATE TABLE soak_journal (seq BIGINT AUTO_INCREMENT PRIMARY KEY, op BIGINT NOT NULL, kind VARCHAR(8) NOT NULL, a BIGINT NOT NULL, b BIGINT NOT NULL, n BIGINT NOT NULL, KEY (op))",
		"CREATE TABLE soak_account (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)",
		"CREATE TABLE soak_register (id BIGINT PRIMARY KEY, value BIGINT NOT NULL)",
		fmt.Sprintf("INSERT INTO soak_account SELECT seq, %d FROM seq_1_to_%d", Tables.Balance, Tables.Accounts),
		fmt.Sprintf("INSERT INTO soak_register SELECT seq, 0 FROM seq_1_to_%d", Tables.Registers),
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("make tables: %w", err)
		}
	}
	return nil
}

// Run lets all clients work until ctx ends, and waits for their last answers.
func (l *Load) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, server := range l.Servers {
		for _, kinds := range l.clients() {
			db, err := l.open(server, l.Dial, kinds[0] != Transfer)
			if err != nil {
				return err
			}
			if kinds[0] == Look {
				_ = db.Close()
				if db, err = l.open(server, l.DialRead, true); err != nil {
					return err
				}
			}
			c := client{load: l, server: server, db: db, kinds: kinds}
			wg.Go(func() { c.run(ctx) })
		}
	}
	return nil
}

// clients are what each client of one server does, over and over.
func (l *Load) clients() [][]Kind {
	all := [][]Kind{{Insert}, {Insert}, {Transfer, Transfer, Sum}, {Change, Read}}
	if l.DialRead != nil {
		all = append(all, []Kind{Look})
	}
	return all
}

// Since is the time since the load began, as in its operations.
func (l *Load) Since() time.Duration { return time.Since(l.begun) }

// History is what has been done, in the order of the ends.
func (l *Load) History() []Op {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ops[:len(l.ops):len(l.ops)]
}

// Acknowledged is how many operations were acknowledged since a moment.
func (l *Load) Acknowledged(since time.Duration) int {
	ops, n := l.History(), 0
	for i := len(ops) - 1; i >= 0 && ops[i].End > since; i-- {
		if ops[i].Outcome == OK {
			n++
		}
	}
	return n
}

// open returns a pool of one connection. Plain statements are written into one
// packet; others are prepared on the server.
func (l *Load) open(server string, dial func(context.Context, string) (net.Conn, error), plain bool) (*sql.DB, error) {
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.Passwd, c.DBName = "tcp", server, l.User, l.Password, l.Database
	c.Timeout, c.ReadTimeout, c.WriteTimeout = dialLimit, opLimit, opLimit
	c.InterpolateParams = plain
	c.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := dial(ctx, server)
		if err != nil {
			return nil, unreached{err}
		}
		return conn, nil
	}
	return pool(c)
}

// Open returns a pool of one connection to mariadbd's own socket, as root.
func Open(socket, database string) (*sql.DB, error) {
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.DBName = "unix", socket, "root", database
	c.Timeout, c.ReadTimeout, c.WriteTimeout = dialLimit, time.Minute, time.Minute
	return pool(c)
}

func pool(c *mysql.Config) (*sql.DB, error) {
	c.Logger = log.New(discard{}, "", 0) // every error is returned as well
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	return db, nil
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// unreached says that there is no connection; so nothing was sent over it.
type unreached struct{ error }

// client is one connection's user.
type client struct {
	load   *Load
	server string
	db     *sql.DB
	kinds  []Kind
}

func (c client) run(ctx context.Context) {
	defer func() { _ = c.db.Close() }()
	every := c.load.Every
	if every == 0 {
		every = 40 * time.Millisecond
	}
	for i := 0; ctx.Err() == nil; i++ {
		begun := time.Now()
		o := c.do(c.kinds[i%len(c.kinds)])
		wait := every - time.Since(begun)
		if o.Outcome != OK {
			wait = max(wait, afterFail)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// do does one operation and writes it down.
func (c client) do(k Kind) Op {
	l := c.load
	o := Op{ID: l.next.Add(1), Kind: k, Server: c.server}
	ctx, cancel := context.WithTimeout(context.Background(), opLimit) // not the load's: what has begun ends
	defer cancel()
	o.Begin = l.Since()
	err := c.perform(ctx, &o)
	o.End = l.Since()
	o.Outcome = outcome(err)
	if err != nil {
		o.Error = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, o)
	if k.writes() && err == nil {
		l.acked.Store(o.ID)
	}
	return o
}

func (c client) perform(ctx context.Context, o *Op) error {
	switch o.Kind {
	case Insert:
		o.N = rand.Int64N(1000)
		return journal(ctx, c.db, *o)
	case Transfer:
		o.A = 1 + rand.Int64N(int64(Tables.Accounts))
		o.B = 1 + (o.A+rand.Int64N(int64(Tables.Accounts-1)))%int64(Tables.Accounts)
		o.N = 1 + rand.Int64N(20)
		return c.transaction(ctx, o, transfer)
	case Change:
		o.A, o.New = 1+rand.Int64N(int64(Tables.Registers)), o.ID
		return c.transaction(ctx, o, change)
	case Read:
		o.A = 1 + rand.Int64N(int64(Tables.Registers))
		return c.db.QueryRowContext(ctx, "SELECT value FROM soak_register WHERE id = ?", o.A).Scan(&o.Old)
	case Sum:
		return c.db.QueryRowContext(ctx, "SELECT SUM(balance) FROM soak_account").Scan(&o.N)
	case Look:
		if o.A = c.load.acked.Load(); o.A == 0 {
			o.N = 1
			return nil
		}
		return c.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM soak_journal WHERE op = ?", o.A).Scan(&o.N)
	}
	return fmt.Errorf("there is no operation %q", o.Kind)
}

// execer is a connection or a transaction.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func journal(ctx context.Context, e execer, o Op) error {
	r := o.row()
	_, err := e.ExecContext(ctx, "INSERT INTO soak_journal (op, kind, a, b, n) VALUES (?, ?, ?, ?, ?)", r.Op, string(r.Kind), r.A, r.B, r.N)
	return err
}

// uncommitted is an error before COMMIT was sent: the transaction is undone.
type uncommitted struct{ error }

func (u uncommitted) Unwrap() error { return u.error }

// transaction does the work and the journal's row in one.
func (c client) transaction(ctx context.Context, o *Op, work func(context.Context, *sql.Tx, *Op) error) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return uncommitted{err}
	}
	err = work(ctx, tx, o)
	if err == nil {
		err = journal(ctx, tx, *o)
	}
	if err != nil {
		_ = tx.Rollback()
		return uncommitted{err}
	}
	return tx.Commit()
}

// transfer reads both balances and writes them anew, as an app would that
// trusts in isolation.
func transfer(ctx context.Context, tx *sql.Tx, o *Op) error {
	for account, n := range map[int64]int64{o.A: -o.N, o.B: o.N} {
		var balance int64
		if err := tx.QueryRowContext(ctx, "SELECT balance FROM soak_account WHERE id = ?", account).Scan(&balance); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "UPDATE soak_account SET balance = ? WHERE id = ?", balance+n, account); err != nil {
			return err
		}
	}
	return nil
}

func change(ctx context.Context, tx *sql.Tx, o *Op) error {
	if err := tx.QueryRowContext(ctx, "SELECT value FROM soak_register WHERE id = ?", o.A).Scan(&o.Old); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "UPDATE soak_register SET value = ? WHERE id = ?", o.New, o.A)
	return err
}

// refused are MariaDB's errors that say that a statement or a COMMIT was not done.
var refused = map[uint16]bool{
	1020: true, // changed since it was read
	1040: true, // too many connections
	1047: true, // not part of the primary component
	1053: true, // shutting down
	1205: true, // lock wait timeout
	1213: true, // deadlock, or another transaction came first
	1290: true, // read-only
}

// outcome is what an error tells of the whole operation.
func outcome(err error) Outcome {
	var told *mysql.MySQLError
	var before uncommitted
	var never unreached
	switch {
	case err == nil:
		return OK
	case errors.As(err, &before), errors.As(err, &never), errors.Is(err, driver.ErrBadConn), errors.As(err, &told) && refused[told.Number]:
		return Failed
	}
	return Unknown
}

// Read reads all that a database holds of the load, in one snapshot and after
// all that the group has committed.
func ReadContent(ctx context.Context, db *sql.DB) (Content, error) {
	c := Content{Balances: map[int64]int64{}, Registers: map[int64]int64{}}
	if _, err := db.ExecContext(ctx, "SET SESSION wsrep_sync_wait = 1"); err != nil {
		return c, fmt.Errorf("read the load's tables: %w", err)
	}
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return c, fmt.Errorf("read the load's tables: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	err = errors.Join(
		each(ctx, tx, "SELECT op, kind, a, b, n FROM soak_journal ORDER BY seq", func(scan func(...any) error) error {
			var r Row
			err := scan(&r.Op, &r.Kind, &r.A, &r.B, &r.N)
			c.Journal = append(c.Journal, r)
			return err
		}),
		pairs(ctx, tx, "SELECT id, balance FROM soak_account", c.Balances),
		pairs(ctx, tx, "SELECT id, value FROM soak_register", c.Registers),
	)
	if err != nil {
		return c, fmt.Errorf("read the load's tables: %w", err)
	}
	return c, nil
}

func pairs(ctx context.Context, tx *sql.Tx, query string, into map[int64]int64) error {
	return each(ctx, tx, query, func(scan func(...any) error) error {
		var k, v int64
		err := scan(&k, &v)
		into[k] = v
		return err
	})
}

func each(ctx context.Context, tx *sql.Tx, query string, f func(scan func(...any) error) error) error {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
