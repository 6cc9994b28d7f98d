package database

import (
	"cmp"
	"context"
	"crypto/sha1" // the authentication plugin's own; see nativeHash
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"trivet/internal/part"
)

// rights are what an app needs on its own database, migrations included.
const rights = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, CREATE TEMPORARY TABLES, " +
	"LOCK TABLES, EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER"

// account is the app's database and user, with the passwords that it may sign in with.
type account struct {
	name, user string
	password   string // that works says whether it works
	old, next  string // while it is being changed
	reader     string // password of Reader
}

func accountOf(s part.State) account {
	return account{
		name: s.Site.Database.Name, user: s.Site.Database.User, password: s.Secrets[part.SecretAppDatabase],
		old: s.Secrets[part.SecretAppDatabaseOld], next: s.Secrets[part.SecretAppDatabaseNext],
		reader: s.Secrets[part.SecretReader],
	}
}

// newest is the password that is to be the last.
func (a account) newest() string { return cmp.Or(a.next, a.password) }

// accepts is what the writer says of the app's user; see part.DatabaseMember.
func (d *Database) accepts(v view) string {
	if v.role.Writer != v.self {
		return ""
	}
	return part.Fingerprint(d.ensured.newest())
}

// hashes of all passwords, the present one first.
func (a account) hashes() []string {
	var out []string
	for _, p := range []string{a.password, a.next, a.old} {
		if h := nativeHash(p); p != "" && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}

// ensure makes the app's database and its user, with rights on that database
// only. It changes nothing that is so already, for each change pauses the
// writes of the whole group.
func (a account) ensure(ctx context.Context, db *sql.DB, socket string) error {
	if a.user == "" || a.password == "" {
		return nil
	}
	have, err := accepted(ctx, db, a.user)
	if err != nil {
		return fmt.Errorf("make the app's database and user: %w", err)
	}
	user := quote(a.user, '\'') + "@'localhost'"
	identified := " IDENTIFIED VIA mysql_native_password USING '" + strings.Join(a.hashes(), "' OR mysql_native_password USING '") + "'"
	var changes []string
	if have == nil {
		changes = append(changes, "CREATE USER IF NOT EXISTS "+user+identified)
	}
	if !sameSet(have, a.hashes()) {
		changes = append(changes, "ALTER USER "+user+identified)
	}
	if have == nil || !a.works(ctx, socket) {
		changes = append(changes,
			"CREATE DATABASE IF NOT EXISTS "+quote(a.name, '`')+" CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
			"GRANT "+rights+" ON "+quote(strings.NewReplacer(`\`, `\\`, "_", `\_`, "%", `\%`).Replace(a.name), '`')+".* TO "+user)
	}
	for _, q := range changes {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("make the app's database and user: %w", err)
		}
	}
	return nil
}

// Reader is the account of a person who only looks: at everything, with no
// right to change anything. Its password is with node, which is root's.
const Reader = "trivet_reader"

// ensureReader makes that account.
func ensureReader(ctx context.Context, db *sql.DB, password string) error {
	have, err := accepted(ctx, db, Reader)
	want := []string{nativeHash(password)}
	if password == "" || err != nil || sameSet(have, want) {
		return err
	}
	user := Reader + "@'localhost'"
	for _, q := range []string{
		"CREATE OR REPLACE USER " + user + " IDENTIFIED BY PASSWORD '" + want[0] + "'",
		"GRANT SELECT, SHOW VIEW, SHOW DATABASES, PROCESS ON *.* TO " + user,
	} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			return fmt.Errorf("make the account for looking: %w", err)
		}
	}
	return nil
}

// accepted are the hashes of the passwords that user can sign in with; nil if there is no such user.
func accepted(ctx context.Context, db *sql.DB, user string) ([]string, error) {
	var data []byte
	err := db.QueryRowContext(ctx, "SELECT Priv FROM mysql.global_priv WHERE Host='localhost' AND User=?", user).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	type way struct {
		Hash string `json:"authentication_string"`
	}
	var priv struct {
		way
		Or []way `json:"auth_or"` // an empty one stands for the first
	}
	if err := json.Unmarshal(data, &priv); err != nil {
		return nil, fmt.Errorf("read the rights of user %s: %w", user, err)
	}
	hashes := []string{}
	for _, w := range append(priv.Or, priv.way) {
		if w.Hash != "" {
			hashes = append(hashes, w.Hash)
		}
	}
	return hashes, nil
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
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
