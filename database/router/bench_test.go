package router

import (
	"context"
	"database/sql"
	"testing"
)

// BenchmarkSelect1 is a round trip by a unix socket or TCP, past the router
// and through it: the differences are what the router costs.
func BenchmarkSelect1(b *testing.B) {
	s := newBenchSite(b)
	for _, by := range []struct{ name, network, address, user, password string }{
		{"direct", "unix", s.database["s1"], appUser, appPassword},
		{"router-unix", "unix", s.socket["s1"], appUser, appPassword},
		{"router-tcp", "tcp", s.app["s1"], appUser, appPassword},
		{"router-tunnel", "tcp", s.app["s2"], appUser, appPassword},
	} {
		b.Run(by.name, func(b *testing.B) {
			c, err := openSQL(b, by.network, by.address, by.user, by.password, appDatabase, nil).Conn(b.Context())
			must(b, err)
			b.ReportAllocs()
			for b.Loop() {
				one(b, c)
			}
		})
	}
}

func newBenchSite(b *testing.B) *site {
	b.Helper()
	s := start(b, map[string]string{"s1": shared(b, 0).socket, "s2": shared(b, 1).socket})
	s.elect("s1", "s1", "s2")
	return s
}

func one(b *testing.B, c *sql.Conn) {
	var n int
	if err := c.QueryRowContext(context.Background(), "SELECT 1").Scan(&n); err != nil || n != 1 {
		b.Fatal(n, err)
	}
}

// BenchmarkConnect is a connection with one statement, as of programs that keep none.
func BenchmarkConnect(b *testing.B) {
	s := newBenchSite(b)
	for _, by := range []struct{ name, network, address string }{
		{"direct", "unix", s.database["s1"]}, {"router-unix", "unix", s.socket["s1"]}, {"router-tunnel", "tcp", s.app["s2"]},
	} {
		b.Run(by.name, func(b *testing.B) {
			db := openSQL(b, by.network, by.address, appUser, appPassword, appDatabase, nil)
			db.SetMaxIdleConns(-1)
			for b.Loop() {
				c, err := db.Conn(b.Context())
				must(b, err)
				one(b, c)
				_ = c.Close()
			}
		})
	}
}
