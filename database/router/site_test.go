package router

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"testing"

	"trivet/internal/metric"
	"trivet/internal/mtls/mtlstest"
	"trivet/internal/part"
	declared "trivet/site"
)

const siteName = "foo"

// site is two servers with a router each, before a mariadbd of their own.
type site struct {
	t         testing.TB
	authority *mtlstest.Authority
	address   map[string]string // of the tunnels, by server
	space     string            // network namespace of s2's tunnel; empty: none
	port      int
	role      part.DatabaseRole
	routers   map[string]*Router
	app       map[string]string // address for the app, by server
	read      map[string]string // the same for reads
	socket    map[string]string // the same as app, as a unix socket
	database  map[string]string // mariadbd's socket, by server
	synced    map[string]bool
	stop      map[string]func()
	ended     map[string]func() error
	limit     int
	password  string
	old       string
}

const appUser, appPassword, appDatabase = "foo-bar", "it's a \"secret\"", "foo_bar"

func newSite(t testing.TB) *site {
	t.Helper()
	return start(t, map[string]string{"s1": shared(t, 0).socket, "s2": shared(t, 1).socket})
}

// start starts the routers before these mariadbds.
func start(t testing.TB, database map[string]string) *site {
	t.Helper()
	s := &site{t: t, address: map[string]string{"s1": "127.0.81.1", "s2": "127.0.81.2"}, database: database, password: appPassword}
	s.startAll()
	return s
}

func (s *site) startAll() {
	s.t.Helper()
	s.authority, s.routers, s.app = mtlstest.New(s.t, siteName), map[string]*Router{}, map[string]string{}
	s.read, s.socket = map[string]string{}, map[string]string{}
	s.stop, s.ended = map[string]func(){}, map[string]func() error{}
	s.synced = map[string]bool{"s1": true, "s2": true}
	for _, name := range []string{"s1", "s2"} {
		s.start(name)
	}
}

// tunnel listens on the server's address, in its namespace if it has one.
func (s *site) tunnel(name string) net.Listener {
	s.t.Helper()
	address := net.JoinHostPort(s.address[name], strconv.Itoa(s.port))
	if name != "s2" || s.space == "" {
		return listen(s.t, "tcp", address)
	}
	var l net.Listener
	err := inNamespace(s.space, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s *site) start(name string) {
	s.t.Helper()
	tunnel := s.tunnel(name)
	s.port = tunnel.Addr().(*net.TCPAddr).Port
	sql, read := listen(s.t, "tcp", "127.0.0.1:0"), listen(s.t, "tcp", "127.0.0.1:0")
	s.socket[name] = filepath.Join(s.t.TempDir(), "app.sock")
	s.app[name], s.read[name] = sql.Addr().String(), read.Addr().String()
	r := New(Config{
		Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry(),
		SQL: sql, Socket: listen(s.t, "unix", s.socket[name]), Read: read,
		Tunnel: tunnel, Database: s.database[name], TunnelPort: s.port,
	})
	s.routers[name] = r
	s.stop[name], s.ended[name] = run(s.t, r)
}

// run runs r; it returns how to end it, and how to wait for its end.
func run(t testing.TB, r *Router) (stop func(), ended func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var err error
	go func() {
		err = r.Run(ctx)
		close(done)
	}()
	ended = func() error {
		<-done
		return err
	}
	t.Cleanup(func() {
		cancel()
		if err := ended(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return cancel, ended
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// elect makes writer the next one and tells the named servers of it.
func (s *site) elect(writer string, tell ...string) {
	s.t.Helper()
	s.role.Epoch++
	s.role.Writer = writer
	s.tell(tell...)
}

func (s *site) tell(names ...string) {
	s.t.Helper()
	for _, name := range names {
		state := part.State{
			Site:    &declared.Site{Database: declared.Database{User: appUser, Name: appDatabase, Connections: s.limit}},
			Secrets: map[string]string{part.SecretAppDatabase: s.password, part.SecretAppDatabaseOld: s.old},
			Server:  name, Database: s.role, Bundle: s.authority.Bundle, Identity: s.authority.Identity(s.t, name, part.Router),
			Members: []part.Member{s.member("s1"), s.member("s2")},
		}
		if err := s.routers[name].Apply(s.t.Context(), state); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *site) member(name string) part.Member {
	m := part.Member{Name: name, Address: s.address[name]}
	if s.synced[name] {
		m.Database.State = part.DatabaseSynced
	}
	return m
}
