package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"trivet/e2e"
	"trivet/e2e/measure"
	"trivet/internal/netns"
)

// account is what the app signs in with.
type account struct{ user, password, database string }

// account finds it where the app does: in its environment.
func (b *bench) account(ctx context.Context) (account, error) {
	all, err := measure.Processes(ctx, b.lab)
	if err != nil {
		return account{}, err
	}
	for pid, p := range all {
		if p.Kind != measure.KindApp {
			continue
		}
		environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			continue // it has ended
		}
		for v := range strings.SplitSeq(string(environment), "\x00") {
			if text, ok := strings.CutPrefix(v, "DATABASE_URL="); ok {
				u, err := url.Parse(text)
				if err != nil {
					return account{}, fmt.Errorf("read the app's DATABASE_URL: %w", err)
				}
				password, _ := u.User.Password()
				return account{u.User.Username(), password, strings.TrimPrefix(u.Path, "/")}, nil
			}
		}
	}
	return account{}, errors.New("no process of the lab was told the database's address")
}

// way is how a client reaches the database.
type way struct {
	name    string
	network string
	address string
	server  string // inside of whose network; empty: a path of this machine
	root    bool
}

// socket is mariadbd's own, past the router.
func (b *bench) socket(server string) way {
	return way{name: "direct", network: "unix", address: filepath.Join(b.lab.Dir(server, "run"), "database", "mariadbd.sock")}
}

// routerSocket is the router's unix socket.
func (b *bench) routerSocket(server string) way {
	return way{name: "router", network: "unix", address: filepath.Join(b.lab.Dir(server, "run"), "router", "mysql.sock")}
}

// router is a server's router by TCP, as its app may reach it.
func (b *bench) router(name, server string) way {
	return way{name: name, network: "tcp", address: "127.0.0.1:3306", server: server}
}

// silent takes the driver's complaints, each of which is returned as an error too.
type silent struct{}

func (silent) Write(p []byte) (int, error) { return len(p), nil }

// open returns a pool of one connection, whose statements are each one packet.
func (b *bench) open(w way) (*sql.DB, error) {
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.Passwd, c.DBName = w.network, w.address, b.app.user, b.app.password, b.app.database
	if w.root {
		c.User, c.Passwd, c.DBName = "root", "", ""
	}
	c.InterpolateParams = true
	c.Timeout, c.ReadTimeout, c.WriteTimeout = 4*time.Second, 15*time.Second, 15*time.Second
	c.Logger = log.New(silent{}, "", 0)
	if w.server != "" {
		c.DialFunc = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = netns.Do(b.lab.Namespace(w.server), func() (err error) {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		}
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	return db, nil
}

// writer is the server that takes the writes.
func (b *bench) writer(ctx context.Context) (string, error) {
	for {
		s, err := b.lab.Status(ctx)
		if err == nil && s.Writer != "" {
			return s.Writer, nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return "", err
		}
	}
}

// other is the first server that is none of these.
func other(not ...string) string {
	for _, s := range e2e.Servers {
		if !strings.Contains(strings.Join(not, " "), s) {
			return s
		}
	}
	return ""
}

// synced waits until all of these servers' databases say that they are, in a
// group of so many, and returns when it was so.
func (b *bench) synced(ctx context.Context, size int, servers ...string) (time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, fmt.Errorf("%v are not synced after two minutes", servers))
	defer cancel()
	for _, server := range servers {
		for !b.isSynced(ctx, server, size) {
			if err := pause(ctx, 20*time.Millisecond); err != nil {
				return time.Time{}, err
			}
		}
	}
	return time.Now(), nil
}

func (b *bench) isSynced(ctx context.Context, server string, size int) bool {
	w := b.socket(server)
	w.root = true
	db, err := b.open(w)
	if err != nil {
		return false
	}
	defer func() { _ = db.Close() }()
	var n int
	err = db.QueryRowContext(ctx, `SELECT COUNT(*) FROM information_schema.global_status WHERE
		(variable_name, variable_value) IN (('WSREP_READY', 'ON'), ('WSREP_CLUSTER_STATUS', 'Primary'), ('WSREP_LOCAL_STATE', '4'), ('WSREP_CLUSTER_SIZE', ?))`,
		fmt.Sprint(size)).Scan(&n)
	return err == nil && n == 4
}
