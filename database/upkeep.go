package database

import (
	"context"
	"crypto/sha1" // the authentication plugin's own; see nativeHash
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"trivet/internal/part"
)

// keep is the upkeep of a running node: a renewed identity and the memory; of
// a synced one also the dead and the app's account. One that was cut off until
// its identity expired needs the new one in order to get back into the group.
func (d *Database) keep(ctx context.Context, v view) {
	if !d.health.answers { // nor did it just end
		return
	}
	err := errors.Join(d.reload(ctx), d.resize(ctx))
	if v.serves() {
		err = errors.Join(err, d.evict(ctx, v), d.ensure(ctx, v))
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("upkeep of the database", "err", err)
	}
}

// resize gives the running mariadbd the memory that the site says.
func (d *Database) resize(ctx context.Context) error {
	d.mu.Lock()
	want := int64(d.state.Site.Database.Memory) * mebibyte
	d.mu.Unlock()
	if want <= 0 || want == d.sized {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var have int64
	if err := d.db.QueryRowContext(ctx, "SELECT @@innodb_buffer_pool_size").Scan(&have); err != nil {
		return fmt.Errorf("read the database's memory: %w", err)
	}
	if have != want {
		if err := d.exec(ctx, fmt.Sprintf("SET GLOBAL innodb_buffer_pool_size=%d", want)); err != nil {
			return err
		}
		d.log.Info("database's memory changed", "from", have, "to", want)
	}
	d.sized = want
	return nil
}

// reload lets mariadbd read a renewed identity.
func (d *Database) reload(ctx context.Context) error {
	d.mu.Lock()
	renewed := d.renewed
	d.mu.Unlock()
	if !renewed {
		return nil
	}
	if err := d.exec(ctx, "SET GLOBAL wsrep_provider_options='socket.ssl_reload=1'"); err != nil {
		return err
	}
	d.mu.Lock()
	d.renewed = false
	d.mu.Unlock()
	d.log.Info("database reads its renewed identity")
	return nil
}

// ensure makes the app's account, on the writer, when it is new or changed.
func (d *Database) ensure(ctx context.Context, v view) error {
	d.mu.Lock()
	s := d.state
	d.mu.Unlock()
	a := account{s.Site.Database.Name, s.Site.Database.User, s.Secrets[part.SecretAppDatabase]}
	if v.role.Writer != v.self || a == d.ensured {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := a.ensure(ctx, d.db, d.paths.Socket); err != nil {
		return err
	}
	d.ensured = a
	return nil
}

// rights are what an app needs on its own database, migrations included.
const rights = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, CREATE TEMPORARY TABLES, " +
	"LOCK TABLES, EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER"

// evict tells the group that a node whose supervisor saw it end is gone: then
// writes go on after some 40 ms rather than the second that its silence would
// take, and a lone survivor keeps its majority. One does it: the lowest.
func (d *Database) evict(ctx context.Context, v view) error {
	cs := ballot{v}.candidates()
	if len(cs) == 0 || cs[0] != v.self {
		return nil
	}
	for _, m := range v.members {
		id := m.Database.Gcomm
		if m.Name == v.self || m.Database.State != part.DatabaseDown || id == "" || d.evicted[m.Name] == id || !slices.Contains(v.health.names, m.Name) {
			continue
		}
		d.evicted[m.Name] = id
		d.log.Info("evicting ended node", "server", m.Name)
		if err := d.exec(ctx, "SET GLOBAL wsrep_provider_options="+quote("evs.evict="+id, '\'')); err != nil {
			return err
		}
	}
	return nil
}

// account is the app's database and user.
type account struct{ name, user, password string }

// ensure makes the app's database and its user, with rights on that database
// only. It changes nothing if the user can already sign in to it, for each
// change pauses the writes of the whole group.
func (a account) ensure(ctx context.Context, db *sql.DB, socket string) error {
	if a.user == "" || a.password == "" || a.works(ctx, socket) {
		return nil
	}
	user := quote(a.user, '\'') + "@'localhost'"
	hashed := " IDENTIFIED BY PASSWORD " + quote(nativeHash(a.password), '\'')
	for _, q := range []string{
		"CREATE DATABASE IF NOT EXISTS " + quote(a.name, '`') + " CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
		"CREATE USER IF NOT EXISTS " + user + hashed,
		"ALTER USER " + user + hashed,
		"GRANT " + rights + " ON " + quote(strings.NewReplacer(`\`, `\\`, "_", `\_`, "%", `\%`).Replace(a.name), '`') + ".* TO " + user,
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("make the app's database and user: %w", err)
		}
	}
	return nil
}

// nativeHash is what mysql_native_password keeps of a password. It is made
// here, for a statement is kept as it stands in the binary log.
func nativeHash(password string) string {
	once := sha1.Sum([]byte(password))
	twice := sha1.Sum(once[:])
	return "*" + strings.ToUpper(hex.EncodeToString(twice[:]))
}

// works reports whether the user can sign in to the database.
func (a account) works(ctx context.Context, socket string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	db, err := open(socket, a.user, a.password, a.name)
	if err != nil {
		return false
	}
	defer func() { _ = db.Close() }()
	return db.PingContext(ctx) == nil
}

// quote writes s as an identifier or a string of SQL.
func quote(s string, mark byte) string {
	m := string(mark)
	if mark == '\'' {
		s = strings.ReplaceAll(s, `\`, `\\`)
	}
	return m + strings.ReplaceAll(s, m, m+m) + m
}
