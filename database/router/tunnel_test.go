package router

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"testing"
	"time"

	"trivet/database/router/wire"
	"trivet/internal/mtls"
	"trivet/internal/mtls/mtlstest"
	"trivet/internal/part"
)

// A repeated state must not move anything.
func TestSameEpoch(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	c := s.session("s2")
	thread := value(t, c, "SELECT CONNECTION_ID()")
	s.tell("s1", "s2")
	if got := value(t, c, "SELECT CONNECTION_ID()"); got != thread {
		t.Errorf("connection %s, want still %s", got, thread)
	}
}

// The caller hears of the change first: the callee holds it until it hears,
// too, be it by the news that its former writer's router has for it.
func TestCalleeIsBehind(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	c := s.session("s1")
	on(t, c, "s1")
	s.elect("s2", "s1")
	on(t, c, "s2")
	s.tell("s2")
	on(t, c, "s2")
}

// The callee hears first. It closes what it has from the caller, and tells it
// who the writer is; the caller's own node may say so much later.
func TestCallerIsBehind(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	c := s.session("s2")
	on(t, c, "s1")
	s.elect("s2", "s1") // s2's node has not said it
	poll(t, "the tunnel is closed or given up", patience, func() bool { return s.routers["s1"].tunnelled.Load() == 0 && !s.holds("s2") })
	on(t, c, "s2")
	if a, _ := s.routers["s2"].writes.now(); a.epoch != s.role.Epoch || a.server != "s2" {
		t.Errorf("s2 goes by epoch %d, writer %s", a.epoch, a.server)
	}
	s.tell("s2")
	on(t, c, "s2")
}

// Older word of its own node does not lead a router back.
func TestOlderWordDoesNotCount(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	r := s.routers["s2"]
	r.hear(news{epoch: s.role.Epoch + 2, writer: "s2"})
	r.hear(news{epoch: s.role.Epoch + 1, writer: "s1"})
	s.tell("s2")
	if a, _ := r.writes.now(); a.server != "s2" {
		t.Errorf("goes by %s, want s2", a.server)
	}
	s.role.Epoch += 2
	s.elect("s1", "s2")
	if a, _ := r.writes.now(); a.server != "s1" {
		t.Errorf("goes by %s, want s1", a.server)
	}
	r.hear(news{epoch: s.role.Epoch + 1, writer: "nobody we know"})
	if err := r.Check(t.Context()); err == nil {
		t.Error("an unknown writer: check got nil")
	}
}

func TestTunnelRefuses(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	s.synced["s2"] = false
	s.tell("s1", "s2")
	epoch := s.role.Epoch
	other := mtlstest.New(t, siteName)
	for _, c := range []struct {
		name   string
		id     part.KeyPair
		server string
		kind   kind
		epoch  int64
		want   bool
	}{
		{"router of this epoch", s.authority.Identity(t, "s2", part.Router), "s1", kindWrite, epoch, true},
		{"reads", s.authority.Identity(t, "s2", part.Router), "s1", kindRead, epoch - 1, true},
		{"reads, not synced", s.authority.Identity(t, "s1", part.Router), "s2", kindRead, epoch, false},
		{"something else", s.authority.Identity(t, "s2", part.Router), "s1", 7, epoch, false},
		{"web of this site", s.authority.Identity(t, "s2", part.Web), "s1", kindWrite, epoch, false},
		{"router of another site", s.authority.Named(t, mtls.ID("bar", "s2", part.Router), time.Hour), "s1", kindWrite, epoch, false},
		{"router of another authority", other.Identity(t, "s2", part.Router), "s1", kindWrite, epoch, false},
		{"former epoch", s.authority.Identity(t, "s2", part.Router), "s1", kindWrite, epoch - 1, false},
		{"not the writer", s.authority.Identity(t, "s1", part.Router), "s2", kindWrite, epoch, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := s.call(t, c.id, c.server, c.kind, c.epoch)
			if (err == nil) != c.want {
				t.Errorf("got %v, want it taken: %t", err, c.want)
			}
		})
	}
}

// call is a tunnel's caller with an identity of its choice.
func (s *site) call(t *testing.T, id part.KeyPair, server string, k kind, epoch int64) error {
	t.Helper()
	cert, err := tls.X509KeyPair(id.Certificate, id.Key)
	must(t, err)
	config := mtls.Client(s.authority.Source(t, "s2", part.Router), server, part.Router)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	c, err := tls.Dial("tcp", net.JoinHostPort(s.address[server], strconv.Itoa(s.port)), config)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return s.routers["s1"].ask(ctx, c, k, epoch)
}

// A writer's router that is replaced: those who come through it find its
// successor, and nobody notices.
func TestWritersRouterLeaves(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	idle, open := dial(t, s.app["s2"], 0), dial(t, s.app["s2"], 0)
	open.good(wire.Query, "BEGIN")
	thread := idle.one("SELECT CONNECTION_ID()")
	poll(t, "s2 listens to s1", patience, func() bool { return s.routers["s1"].callers.Load() == 3 })
	old := s.routers["s1"]
	s.stop["s1"]()
	poll(t, "the idle session has left it", patience, func() bool { return old.tunnelled.Load() == 1 })
	s.start("s1")
	s.tell("s1")
	if got := idle.one("SELECT CONNECTION_ID()"); got == thread {
		t.Error("still the same connection")
	}
	open.good(wire.Query, "INSERT INTO t (v) VALUES (1)")
	open.good(wire.Query, "COMMIT")
	open.good(wire.Query, "DO 1")
	poll(t, "nobody is left", patience, func() bool { return old.tunnelled.Load() == 0 })
	if cut, back := s.routers["s2"].meters.cut.Load(), s.routers["s2"].meters.rolledBack.Load(); cut+back > 0 {
		t.Errorf("%d cut, %d rolled back, want none", cut, back)
	}
	poll(t, "s2 listens to the successor", patience, func() bool { return s.routers["s1"].callers.Load() == 3 })
}

// The writer's router knows first, and says so before anybody asks.
func TestNewsTravels(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	poll(t, "s2 listens to s1", patience, func() bool { return s.routers["s1"].callers.Load() == 1 })
	s.elect("s2", "s1")
	poll(t, "s2 has heard", patience, func() bool {
		a, _ := s.routers["s2"].writes.now()
		return a.server == "s2"
	})
}
