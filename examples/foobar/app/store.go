package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// store is the board's table.
type store struct{ db *sql.DB }

// errConflict is returned by add when the message's key belongs to another message.
var errConflict = errors.New("that id belongs to another message")

// openStore prepares for the database at address, which has the form
// mysql://user:password@host:port/name. It does not connect yet.
func openStore(address string) (*store, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "mysql" || u.Host == "" {
		// The address holds a password, so that it is not repeated here.
		return nil, errors.New("set $DATABASE_URL to mysql://user:password@host:port/name")
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = u.User.Username(), "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
	cfg.Passwd, _ = u.User.Password()
	cfg.ParseTime, cfg.InterpolateParams = true, true
	// A server that is frozen or cut off says nothing at all: these limits are
	// what ends such a connection.
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = 2*time.Second, 5*time.Second, 5*time.Second
	cfg.Logger = &mysql.NopLogger{} // what matters comes back as an error
	if err := cfg.Apply(mysql.Charset("utf8mb4", "utf8mb4_unicode_ci")); err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(8)
	db.SetConnMaxLifetime(5 * time.Minute)
	return &store{db: db}, nil
}

func (s *store) close() error { return s.db.Close() }

// add stores m and returns it as it is stored, once it is committed. The
// message's key is unique in the table, so that add can be repeated after any
// failure: if an earlier attempt was committed although its answer was lost,
// the repetition finds it.
func (s *store) add(ctx context.Context, m message) (message, error) {
	m.Created = time.Now().UTC().Truncate(time.Microsecond)
	var stored message
	err := retry(ctx, func(ctx context.Context) error {
		const insert = `INSERT INTO messages (uid, author, text, server, created) VALUES (?, ?, ?, ?, ?)`
		res, err := s.db.ExecContext(ctx, insert, m.ID, m.Author, m.Text, m.Server, m.Created)
		if number(err) == duplicateKey {
			stored, err = s.find(ctx, m.ID)
			return err
		}
		if err != nil {
			return err
		}
		stored = m
		stored.Seq, err = res.LastInsertId()
		return err
	})
	if err != nil {
		return message{}, fmt.Errorf("store message: %w", err)
	}
	if stored.Author != m.Author || stored.Text != m.Text {
		return message{}, errConflict
	}
	return stored, nil
}

// get returns the message with that key, or sql.ErrNoRows.
func (s *store) get(ctx context.Context, id string) (m message, err error) {
	err = retry(ctx, func(ctx context.Context) error {
		m, err = s.find(ctx, id)
		return err
	})
	return m, err
}

const columns = `SELECT id, uid, author, text, server, created FROM messages `

func (s *store) find(ctx context.Context, id string) (message, error) {
	return scan(s.db.QueryRowContext(ctx, columns+`WHERE uid = ?`, id))
}

// selection says which messages list returns.
type selection struct {
	query   string // part of the author or text; empty: all
	after   int64  // those with a greater Seq
	forward bool   // the oldest first; otherwise the newest
	before  int64  // those with a smaller Seq; 0: all
	limit   int
}

func (s *store) list(ctx context.Context, sel selection) (list []message, err error) {
	query, args := sel.sql()
	err = retry(ctx, func(ctx context.Context) error {
		list, err = s.rows(ctx, query, args)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list messages: %w", err)
	}
	return list, nil
}

func (s *store) rows(ctx context.Context, query string, args []any) ([]message, error) {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	list := []message{}
	for rows.Next() {
		m, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, rows.Err()
}

func scan(row interface{ Scan(...any) error }) (m message, err error) {
	err = row.Scan(&m.Seq, &m.ID, &m.Author, &m.Text, &m.Server, &m.Created)
	return m, err
}

// sql returns the statement and its arguments.
func (sel selection) sql() (string, []any) {
	var where []string
	var args []any
	add := func(condition string, values ...any) {
		where = append(where, condition)
		args = append(args, values...)
	}
	order := "DESC"
	if sel.forward {
		order = "ASC"
		add("id > ?", sel.after)
	}
	if sel.before > 0 {
		add("id < ?", sel.before)
	}
	if sel.query != "" {
		pattern := "%" + likeEscape.Replace(sel.query) + "%"
		add("(text LIKE ? ESCAPE '!' OR author LIKE ? ESCAPE '!')", pattern, pattern)
	}
	query := columns
	if len(where) > 0 {
		query += "WHERE " + strings.Join(where, " AND ") + " "
	}
	return query + "ORDER BY id " + order + " LIMIT ?", append(args, sel.limit)
}

// likeEscape makes the signs that mean something to LIKE mean themselves.
var likeEscape = strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")
