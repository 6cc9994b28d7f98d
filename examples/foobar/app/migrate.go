package main

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strings"
	"time"
)

// migrations are the steps that make the tables, in the order of their names.
// Each file holds one statement, which may be repeated without harm (IF NOT
// EXISTS): a server can die between a step and the note that it was done.
//
//go:embed migrations/*.sql
var migrations embed.FS

// migrateUntilDone makes the tables, however long the database takes to come.
// The board answers meanwhile, if only that it is starting.
func (s *store) migrateUntilDone(ctx context.Context, log *slog.Logger) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := s.migrate(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		log.Warn("migrate database; will try again", "err", err, "in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// migrate takes the steps that the database has not seen. All instances on all
// servers call it when they start. A lock keeps them apart: Galera does not
// replicate such locks, but everyone speaks to the one writer, and a step that
// is taken twice all the same does no harm.
func (s *store) migrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close() }()
	var locked int
	// The wait is shorter than the connection's read timeout.
	if err := conn.QueryRowContext(ctx, `SELECT COALESCE(GET_LOCK('foobar-migrations', 3), 0)`).Scan(&locked); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	if locked != 1 {
		return errors.New("another instance is at it")
	}
	defer func() { _, _ = conn.ExecContext(ctx, `DO RELEASE_LOCK('foobar-migrations')`) }()
	const table = `CREATE TABLE IF NOT EXISTS schema_migrations (
		name VARCHAR(100) NOT NULL PRIMARY KEY, done DATETIME NOT NULL) ENGINE=InnoDB`
	if _, err := conn.ExecContext(ctx, table); err != nil {
		return fmt.Errorf("make schema_migrations: %w", err)
	}
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := step(ctx, conn, file); err != nil {
			return fmt.Errorf("step %s: %w", path.Base(file), err)
		}
	}
	return nil
}

// step takes one step unless it was taken.
func step(ctx context.Context, conn *sql.Conn, file string) error {
	name := strings.TrimSuffix(path.Base(file), ".sql")
	var done int
	if err := conn.QueryRowContext(ctx, `SELECT COUNT(*) FROM schema_migrations WHERE name = ?`, name).Scan(&done); err != nil || done > 0 {
		return err
	}
	text, err := migrations.ReadFile(file)
	if err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, string(text)); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, `INSERT IGNORE INTO schema_migrations (name, done) VALUES (?, UTC_TIMESTAMP())`, name)
	return err
}
