package database

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trivet/internal/mtls/mtlstest"
	"trivet/internal/part"
	"trivet/site"
)

// single is one server's database alone, supervised as ever, on an address of
// the loopback. Tests of what needs no peers share it: a start takes seconds.
type single struct {
	d     *Database
	paths Paths
	db    *sql.DB       // as root
	free  atomic.Uint64 // bytes that its disk seems to have left

	mu    sync.Mutex
	state part.State
}

// newSingle starts it and waits until it takes the writes.
func newSingle(t *testing.T) *single {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: runs mariadbd as another user")
	}
	if _, err := exec.LookPath("mariadbd"); err != nil {
		t.Skipf("needs mariadbd: %v", err)
	}
	base, err := os.MkdirTemp("/tmp", "tds-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &single{paths: Paths{
		Data: base + "/data", TLS: base + "/tls", Settings: base + "/my.cnf", Run: base + "/sst",
		Records: base + "/process", Log: base + "/log/mariadbd.log", Socket: base + "/run/mariadbd.sock",
	}}
	authority := mtlstest.New(t, "foobar")
	s.state = part.State{
		Site: &site.Site{Name: "foobar", Database: site.Database{Name: "foobar", User: "foobar", Memory: 64}}, Server: "s1",
		Members: []part.Member{{Name: "s1", Address: "127.0.87.1", Alive: true}}, Quorum: true,
		Identity: authority.Identity(t, "s1", part.Database), Bundle: authority.Bundle,
		Secrets: map[string]string{part.SecretAppDatabase: secret, part.SecretReader: "reader's"},
	}
	s.d = New(s.config(t, base))
	s.free.Store(1 << 40)
	s.d.room = func(dir string) disk { return disk{known: true, free: s.free.Load(), path: dir} }
	s.run(t)
	s.until(t, "it takes the writes and has the app's user", func() bool { return s.d.Status().Accepts != "" })
	if s.db, err = open(s.paths.Socket, "root", "", ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.db.Close() })
	return s
}

func (s *single) config(t *testing.T, base string) Config {
	role := func(f func(*part.DatabaseRole) error) error {
		var err error
		s.change(t, func(st *part.State) { err = f(&st.Database) })
		return err
	}
	return Config{
		Server: "s1", Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)), Executable: filepath.Join(base, "trivet"), Paths: s.paths,
		Report: func(m part.DatabaseMember) { s.change(t, func(st *part.State) { st.Members[0].Database = m }) },
		ElectWriter: func(_ context.Context, epoch int64, writer string) error {
			return role(func(r *part.DatabaseRole) error {
				if r.Epoch != epoch {
					return fmt.Errorf("epoch is %d", r.Epoch)
				}
				r.Writer, r.Next, r.Epoch = writer, "", epoch+1
				return nil
			})
		},
		Agree: func(_ context.Context, _, next part.DatabaseRole) error {
			return role(func(r *part.DatabaseRole) error {
				next.Writer, next.Next, next.Epoch = r.Writer, r.Next, r.Epoch
				*r = next
				return nil
			})
		},
		Remember: func(_ context.Context, change func(*part.DatabaseRecord)) error {
			s.change(t, func(st *part.State) { change(&st.Record) })
			return nil
		},
	}
}

// change changes what is agreed and applies it, beside the caller, who may be the supervisor.
func (s *single) change(t *testing.T, f func(*part.State)) {
	s.mu.Lock()
	next := s.state
	next.Members = append([]part.Member(nil), s.state.Members...)
	f(&next)
	s.state = next
	s.mu.Unlock()
	if err := s.d.Apply(context.Background(), next); err != nil {
		t.Errorf("apply: %v", err)
	}
}

func (s *single) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.d.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		stop, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		defer cancel()
		if err := s.d.Stop(stop); err != nil {
			t.Errorf("stop: %v", err)
		}
		if t.Failed() {
			t.Logf("%s", logTail(s.paths.Log))
		}
	})
	s.change(t, func(*part.State) {})
}

func (s *single) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	limit := time.After(40 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain until %s; check says %v", what, s.d.Check(t.Context()))
		}
	}
}

// as returns a connection of the app's user, or of another.
func (s *single) as(t *testing.T, user, password, name string) *sql.DB {
	t.Helper()
	db, err := open(s.paths.Socket, user, password, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func (s *single) exec(t *testing.T, db *sql.DB, queries ...string) {
	t.Helper()
	for _, q := range queries {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}
