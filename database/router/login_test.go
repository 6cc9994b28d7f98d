package router

import (
	"testing"

	"trivet/database/router/wire"
)

func TestLogin(t *testing.T) {
	s := newSite(t)
	s.old = "before"
	s.elect("s1", "s1")
	for _, c := range []struct {
		name, user, password, database string
		change                         func(*wire.Login)
		want                           uint16
	}{
		{"the app", appUser, appPassword, appDatabase, nil, 0},
		{"no database", appUser, appPassword, "", nil, 0},
		{"former password", appUser, "before", appDatabase, nil, 0},
		{"wrong password", appUser, "guess", appDatabase, nil, 1045},
		{"no password", appUser, "", appDatabase, nil, 1045},
		{"another user", "root", appPassword, appDatabase, nil, 1045},
		{"nobody", "", "", "", nil, 1045},
		{"no such database", appUser, appPassword, "nonsense", nil, 1044},
		{"another plugin", appUser, appPassword, appDatabase, func(l *wire.Login) { l.Plugin, l.Answer = "caching_sha2_password", make([]byte, 32) }, 0},
		{"another plugin, another user", "root", appPassword, "", func(l *wire.Login) { l.Plugin = "caching_sha2_password" }, 1045},
		{"old protocol", appUser, appPassword, "", func(l *wire.Login) { l.Capabilities &^= wire.ClientProtocol41 }, 1043},
		{"TLS", appUser, appPassword, "", func(l *wire.Login) { l.Capabilities |= wire.ClientSSL }, 1043},
		{"all capabilities", appUser, appPassword, appDatabase, func(l *wire.Login) {
			l.Capabilities |= 0xffffffff &^ (wire.ClientSSL | wire.ClientLenencAuth)
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := greeted(t, s.app["s1"])
			l := r.as(c.user, c.password, c.database, 0)
			if c.change != nil {
				c.change(&l)
			}
			payload := r.login(l)
			got := uint16(0)
			if e := wire.ParseError(payload); e != nil {
				got = e.Code
				t.Log(e)
				r.ended()
			} else if !wire.IsOK(payload) {
				t.Fatalf("got %x", payload)
			}
			if got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

// What the router does not carry it must not offer.
func TestOffers(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1")
	dial(t, s.app["s1"], 0)
	r, _ := greeted(t, s.app["s1"])
	const compress, localFiles = 1 << 5, 1 << 7
	if got := r.greeting.Capabilities & (wire.ClientSSL | compress | localFiles); got != 0 {
		t.Errorf("offers %#x", got)
	}
	if want := *s.routers["s1"].version.Load(); r.greeting.Version != want || want == unknownVersion {
		t.Errorf("greets as %q, mariadbd as %q", r.greeting.Version, want)
	}
}

func TestBeforeAnyState(t *testing.T) {
	s := newSite(t)
	if err := s.routers["s1"].Check(t.Context()); err == nil || err.Error() != "no state yet" {
		t.Errorf("got %v, want no state yet", err)
	}
	r, _ := greeted(t, s.app["s1"])
	if e := wire.ParseError(r.login(r.as("", "", "", 0))); e == nil || e.Code != 1045 {
		t.Errorf("got %v, want 1045", e)
	}
}

func TestNobodyWrites(t *testing.T) {
	s := newSite(t)
	s.elect("", "s1")
	if err := s.routers["s1"].Check(t.Context()); err == nil {
		t.Error("check without a writer: got nil")
	}
	r, _ := greeted(t, s.app["s1"])
	if e := wire.ParseError(r.login(r.as(appUser, appPassword, appDatabase, 0))); e == nil || e.Code != 1290 {
		t.Errorf("got %v, want 1290", e)
	}
}

func TestHeldUntilElected(t *testing.T) {
	s := newSite(t)
	s.elect("", "s1", "s2")
	r, _ := greeted(t, s.app["s1"])
	r.send(1, r.as(appUser, appPassword, appDatabase, 0).Append(nil))
	poll(t, "the connection waits", patience, func() bool { return s.routers["s1"].waiting() == 1 })
	s.elect("s1", "s1", "s2")
	if p, _ := r.packet(); !wire.IsOK(p) {
		t.Errorf("got %x", p)
	}
}

func TestTooMany(t *testing.T) {
	s := newSite(t)
	s.limit = 2
	s.elect("s1", "s1")
	first, second := dial(t, s.app["s1"], 0), dial(t, s.app["s1"], 0)
	third, _ := greeted(t, s.app["s1"])
	third.send(1, third.as(appUser, appPassword, appDatabase, 0).Append(nil))
	poll(t, "the third waits", patience, func() bool { return s.routers["s1"].waiting() == 1 })
	first.send(0, []byte{byte(wire.Quit)})
	if p, _ := third.packet(); !wire.IsOK(p) {
		t.Errorf("the third: got %x", p)
	}
	fourth, _ := greeted(t, s.app["s1"])
	if e := wire.ParseError(fourth.login(fourth.as(appUser, appPassword, appDatabase, 0))); e == nil || e.Code != 1040 {
		t.Errorf("the fourth, after its wait: got %v, want 1040", e)
	}
	second.good(wire.Ping, "")
	g := &s.routers["s1"].gate
	g.mu.Lock()
	g.most, g.limit = 0, 0
	g.mu.Unlock()
	if _, e := greeted(t, s.app["s1"]); e == nil || e.Code != 1040 || e.State != "" {
		t.Errorf("with a full queue: got %v, want 1040 instead of a greeting", e)
	}
}
