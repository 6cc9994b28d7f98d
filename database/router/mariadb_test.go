package router

import (
	"database/sql"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// mariadb is a real mariadbd of the test's own, without a group.
type mariadb struct {
	dir, socket string
	number      int
	cmd         *exec.Cmd
}

// instances are what all tests share, and the empty data folder that each is made of.
var instances struct {
	sync.Mutex
	base string
	all  map[int]*mariadb
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, db := range instances.all {
		db.kill()
	}
	if instances.base != "" {
		_ = os.RemoveAll(instances.base)
	}
	os.Exit(code)
}

// shared is the mariadbd of that number, which is never stopped. Its server_id
// is one more.
func shared(t testing.TB, number int) *mariadb {
	t.Helper()
	template(t)
	instances.Lock()
	defer instances.Unlock()
	if db, ok := instances.all[number]; ok {
		return db
	}
	db := newMariaDB(t, number)
	instances.all[number] = db
	return db
}

// template makes the data folder that the instances are copies of.
func template(t testing.TB) {
	t.Helper()
	instances.Lock()
	defer instances.Unlock()
	if instances.base != "" {
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: runs mariadbd as its own user")
	}
	if _, err := exec.LookPath("mariadbd"); err != nil {
		t.Skipf("needs mariadbd: %v", err)
	}
	base, err := os.MkdirTemp("/tmp", "trouter-")
	if err != nil {
		t.Fatal(err)
	}
	instances.base, instances.all = base, map[int]*mariadb{}
	must(t, os.Chmod(base, 0o755))
	shell(t, "chown", "mysql", base)
	shell(t, "mariadb-install-db", "--no-defaults", "--user=mysql", "--datadir="+base+"/template", "--force", "--skip-test-db",
		"--skip-name-resolve", "--auth-root-authentication-method=socket", "--innodb-flush-log-at-trx-commit=0",
		"--innodb-doublewrite=0", "--innodb-log-file-size=8M", "--performance-schema=OFF")
}

func shell(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newMariaDB starts one with the app's account and database.
func newMariaDB(t testing.TB, number int) *mariadb {
	t.Helper()
	dir := filepath.Join(instances.base, fmt.Sprintf("%d-%d", number, time.Now().UnixNano()))
	shell(t, "cp", "-a", instances.base+"/template", dir)
	db := &mariadb{dir: dir, socket: dir + "/s.sock", number: number}
	db.start(t)
	root := db.root(t)
	defer func() { _ = root.Close() }()
	for _, q := range []string{
		"CREATE DATABASE foo_bar CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci", "CREATE DATABASE foo_other",
		"CREATE USER 'foo-bar'@'localhost' IDENTIFIED BY 'it''s a \"secret\"'",
		"GRANT ALL ON foo_bar.* TO 'foo-bar'@'localhost'", "GRANT ALL ON foo_other.* TO 'foo-bar'@'localhost'",
		"CREATE TABLE foo_bar.t (id INT AUTO_INCREMENT PRIMARY KEY, v LONGBLOB)",
	} {
		if _, err := root.Exec(q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	return db
}

func (db *mariadb) start(t testing.TB) {
	t.Helper()
	out, err := os.Create(db.dir + "/log")
	must(t, err)
	defer func() { _ = out.Close() }()
	db.cmd = exec.Command("mariadbd", "--no-defaults", "--user=mysql", "--datadir="+db.dir, "--socket="+db.socket, "--skip-networking",
		"--skip-name-resolve", "--performance-schema=OFF", "--character-set-server=utf8mb4", "--collation-server=utf8mb4_unicode_ci",
		"--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0", "--max-allowed-packet=64M",
		"--log-bin=bin", "--binlog-format=ROW", "--server-id="+strconv.Itoa(db.number+1), "--max-connections=500")
	db.cmd.Stdout, db.cmd.Stderr = out, out
	must(t, db.cmd.Start())
	poll(t, "mariadbd takes connections", 20*time.Second, func() bool {
		c, err := net.Dial("unix", db.socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (db *mariadb) kill() {
	_ = db.cmd.Process.Kill()
	_ = db.cmd.Wait()
}

// root is a connection past the router.
func (db *mariadb) root(t testing.TB) *sql.DB {
	t.Helper()
	return openSQL(t, "unix", db.socket, "root", "", "", nil)
}

// openSQL is a pool of at most one connection, which a test may take for a session.
func openSQL(t testing.TB, network, address, user, password, name string, change func(*mysql.Config)) *sql.DB {
	t.Helper()
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.Passwd, c.DBName = network, address, user, password, name
	c.Timeout, c.ReadTimeout, c.WriteTimeout = 10*time.Second, 30*time.Second, 30*time.Second
	c.InterpolateParams, c.MultiStatements = true, true
	c.Logger = log.New(quiet{}, "", 0)
	c.MaxAllowedPacket = 64 << 20
	if change != nil {
		change(c)
	}
	connector, err := mysql.NewConnector(c)
	must(t, err)
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

type quiet struct{}

func (quiet) Write(p []byte) (int, error) { return len(p), nil }

// poll looks often for what no one tells us, against a deadline.
func poll(t testing.TB, what string, limit time.Duration, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, limit)
		}
		<-tick.C
	}
}
