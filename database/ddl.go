package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// A change of a table holds the writes of all servers until it is done, so one
// of a large table is told: in the log, by Check, and as a metric. The choice
// of how is the app's: a change that the database makes at once
// (ALGORITHM=INSTANT), or a copy of the table made beside it in small steps.
const (
	largeRows  = 100_000
	largeBytes = 256 * mebibyte
	ddlLook    = time.Second
	ddlShort   = 500 * time.Millisecond // what takes no longer is not worth a word
)

// ddl is a change of a large table that is under way; the zero value is none.
type ddl struct {
	id    int64 // of the connection
	table string
	rows  int64
	bytes int64
	since time.Time
}

func (c ddl) lasts() time.Duration {
	if c.id == 0 {
		return 0
	}
	return time.Since(c.since)
}

func (c ddl) warning() string {
	if c.id == 0 {
		return ""
	}
	return fmt.Sprintf("writes wait: table %s (about %d rows, %d MiB) is being changed by connection %d; `trivet db shell -- -e 'KILL %d'` ends that", c.table, c.rows, c.bytes/mebibyte, c.id, c.id)
}

// watchDDL looks on the writer for a change of a large table.
func (d *Database) watchDDL(ctx context.Context, v view) error {
	if v.role.Writer != v.self {
		d.ddl = ddl{}
		return nil
	}
	if time.Since(d.ddlLooked) < ddlLook {
		return nil
	}
	d.ddlLooked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	now, err := findDDL(ctx, d.db)
	if err != nil {
		return err
	}
	switch was := d.ddl; {
	case now.id != 0 && (was.id != now.id || was.table != now.table):
		d.log.Warn("a large table is being changed, and writes wait for it", "table", now.table, "rows", now.rows, "bytes", now.bytes, "connection", now.id)
	case now.id == 0 && was.id != 0:
		d.log.Info("the large table's change has ended", "table", was.table, "lasted", was.lasts().Round(time.Second))
	}
	d.ddl = now
	return nil
}

// findDDL looks through the statements that run for one that changes a large table.
func findDDL(ctx context.Context, db *sql.DB) (ddl, error) {
	rows, err := db.QueryContext(ctx, `SELECT ID, COALESCE(DB, ''), TIME_MS, INFO FROM information_schema.PROCESSLIST
WHERE COMMAND IN ('Query', 'Execute') AND TIME_MS >= ? AND INFO RLIKE '^[^[:alpha:]]*(ALTER|CREATE|DROP|OPTIMIZE)[[:space:]]' LIMIT 10`, ddlShort.Milliseconds())
	if err != nil {
		return ddl{}, fmt.Errorf("look for changes of tables: %w", err)
	}
	type change struct {
		ddl
		schema, name string
	}
	var found []change
	for rows.Next() {
		var c change
		var current, text string
		var ms float64
		if err := rows.Scan(&c.id, &current, &ms, &text); err != nil {
			return ddl{}, errors.Join(err, rows.Close())
		}
		c.since = time.Now().Add(-time.Duration(ms) * time.Millisecond)
		var ok bool
		if c.schema, c.name, ok = changedTable(text); !ok {
			continue
		}
		if c.schema == "" {
			c.schema = current
		}
		found = append(found, c)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return ddl{}, err
	}
	for _, c := range found {
		// Not information_schema.TABLES, which would wait for the change itself.
		err := db.QueryRowContext(ctx, `SELECT n_rows, (clustered_index_size + sum_of_other_index_sizes) * @@innodb_page_size
FROM mysql.innodb_table_stats WHERE database_name=? AND table_name=?`, c.schema, c.name).Scan(&c.rows, &c.bytes)
		if err == nil && (c.rows >= largeRows || c.bytes >= largeBytes) {
			c.table = c.schema + "." + c.name
			return c.ddl, nil
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return ddl{}, fmt.Errorf("look how large a table is: %w", err)
		}
	}
	return ddl{}, nil
}

const identifier = "(?:`((?:[^`]|``)+)`|([0-9A-Za-z_$\\x{80}-\\x{FFFF}]+))"

var changing = regexp.MustCompile(`(?is)^\s*(?:/\*.*?\*/\s*)*(?:` +
	`ALTER\s+(?:ONLINE\s+)?(?:IGNORE\s+)?TABLE\s+(?:IF\s+EXISTS\s+)?` +
	`|OPTIMIZE\s+(?:NO_WRITE_TO_BINLOG\s+|LOCAL\s+)?TABLES?\s+` +
	`|CREATE\s+(?:OR\s+REPLACE\s+)?(?:(?:UNIQUE|FULLTEXT|SPATIAL)\s+)?INDEX\s.*?\sON\s+` +
	`|DROP\s+INDEX\s.*?\sON\s+` +
	`)` + identifier + `(?:\s*\.\s*` + identifier + `)?`)

// changedTable is the table that a statement changes as a whole; schema is empty if it is the current one.
func changedTable(statement string) (schema, table string, ok bool) {
	m := changing.FindStringSubmatch(statement)
	if m == nil {
		return "", "", false
	}
	name := func(quoted, bare string) string {
		if quoted != "" {
			return strings.ReplaceAll(quoted, "``", "`")
		}
		return bare
	}
	first, second := name(m[1], m[2]), name(m[3], m[4])
	if second == "" {
		return "", first, true
	}
	return first, second, true
}
