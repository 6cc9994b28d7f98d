package cluster

import (
	"crypto/tls"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"trivet/internal/mtls/mtlstest"
)

func TestStore(t *testing.T) {
	p, _ := startThree(t)
	if got := p[0].call(t, request{Op: "get", Key: "a"}); got.Kind != "missing" {
		t.Errorf("get: got %+v, want missing", got)
	}
	first := p[0].must(t, request{Op: "swap", Key: "a", Data: "1"})
	if got := p[1].call(t, request{Op: "swap", Key: "a", Data: "2"}); got.Kind != "conflict" {
		t.Errorf("swap of an existing key: got %+v, want conflict", got)
	}
	p[1].must(t, request{Op: "swap", Key: "a", Data: "2", Prev: first.Rev})
	if got := p[2].call(t, request{Op: "swap", Key: "a", Data: "3", Prev: first.Rev}); got.Kind != "conflict" {
		t.Errorf("swap of an old revision: got %+v, want conflict", got)
	}
	if got := p[2].must(t, request{Op: "get", Key: "a"}); got.Data != "2" {
		t.Errorf("get: got %q, want 2", got.Data)
	}
	p[0].must(t, request{Op: "delete", Key: "a"})
	if got := p[1].call(t, request{Op: "get", Key: "a"}); got.Kind != "missing" {
		t.Errorf("get after delete: got %+v, want missing", got)
	}
}

func TestLeaderResigns(t *testing.T) {
	p, _ := startThree(t)
	leader, _ := roles(t, p)
	leader.must(t, request{Op: "resign"})
	if leader.call(t, request{Op: "leader"}).OK {
		t.Error("got still the leader, want another")
	}
	leader.must(t, request{Op: "put", Key: "a", Data: "1"})
}

// The life of a server that holds something and is not the leader.
func TestHolderDies(t *testing.T) {
	p, _ := startThree(t)
	_, others := roles(t, p)
	holder, heir := others[0], others[1]
	holder.must(t, request{Op: "announce", Key: "w/alive", Data: "1"})
	if !holder.must(t, request{Op: "acquire", Key: "w/address", Data: holder.conf.Name}).OK {
		t.Fatal("acquire of a free key: got false")
	}
	if heir.must(t, request{Op: "acquire", Key: "w/address", Data: heir.conf.Name}).OK {
		t.Fatal("acquire of a held key: got true")
	}
	if !holder.call(t, request{Op: "holds", Key: "w/address"}).OK || heir.call(t, request{Op: "holds", Key: "w/address"}).OK {
		t.Fatal("holds: want true for the holder only")
	}
	eventually(t, time.Second, "the announcement seen", func() bool { return heir.call(t, request{Op: "watched"}).Values["w/alive"] == "1" })

	holder.kill()
	killed := time.Now()
	eventually(t, 3*time.Second, "the key acquired by the heir", func() bool {
		return heir.call(t, request{Op: "acquire", Key: "w/address", Data: heir.conf.Name}).OK
	})
	t.Logf("moved after %v", time.Since(killed))
	if _, ok := heir.call(t, request{Op: "watched"}).Values["w/alive"]; ok {
		eventually(t, time.Second, "the announcement gone", func() bool { _, ok := heir.call(t, request{Op: "watched"}).Values["w/alive"]; return !ok })
	}

	holder.start(t)
	eventually(t, 10*time.Second, "the former holder back", func() bool { return holder.call(t, request{Op: "quorum"}).OK })
	if holder.must(t, request{Op: "acquire", Key: "w/address", Data: holder.conf.Name}).OK {
		t.Error("acquire by the former holder: got true, want the heir to keep it")
	}
}

// A node that restarts within its lease's lifetime resumes what it held.
func TestHolderRestarts(t *testing.T) {
	p, _ := startThree(t)
	_, others := roles(t, p)
	holder := others[0]
	holder.must(t, request{Op: "acquire", Key: "w/address", Data: holder.conf.Name})
	rev := holder.must(t, request{Op: "get", Key: "w/address"}).Rev
	holder.kill()
	holder.start(t)
	eventually(t, 10*time.Second, "the key resumed", func() bool {
		return holder.call(t, request{Op: "acquire", Key: "w/address", Data: holder.conf.Name}).OK
	})
	if got := holder.must(t, request{Op: "get", Key: "w/address"}).Rev; got <= rev {
		t.Errorf("revision: got %d, want more than %d: it must hang on the new lease", got, rev)
	}
	eventually(t, 10*time.Second, "held beyond the old lease", func() bool {
		return holder.call(t, request{Op: "holds", Key: "w/address"}).OK
	})
}

// An identity of another part is no peer, nor is one of another authority or address.
func TestForeignIdentity(t *testing.T) {
	p, root := three(t)
	refused := func(want string) {
		t.Helper()
		p[0].start(t)
		p[1].start(t)
		if got := p[0].call(t, request{Op: "put", Key: "a", Data: "1"}); got.Kind != "quorum" {
			t.Errorf("%s: got %+v, want no quorum", want, got)
		}
		p[0].kill()
		p[1].kill()
	}
	issue(t, root, p[1].conf, "web", 3, time.Hour)
	refused("part web")
	other := mtlstest.New(t, "test")
	issue(t, other, p[1].conf, "node", 3, time.Hour)
	if err := os.WriteFile(p[1].conf.CA, root.Bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("another authority")
	issue(t, root, p[1].conf, "node", 3, -time.Second)
	refused("expired")

	// The very same two agree once the identity is right: files are reread.
	p[0].start(t)
	p[1].start(t)
	issue(t, root, p[1].conf, "node", 4, time.Hour)
	eventually(t, 20*time.Second, "a quorum with the right identity", func() bool { return p[0].call(t, request{Op: "quorum"}).OK })
}

// Identities are rotated in the files, without a restart; a member that comes
// back sees the new one.
func TestRotation(t *testing.T) {
	p, root := startThree(t)
	for i, m := range p {
		issue(t, root, m.conf, "node", int64(100+i), time.Hour)
	}
	p[2].kill()
	p[2].start(t)
	eventually(t, 20*time.Second, "the third in step", func() bool { return p[2].call(t, request{Op: "quorum"}).OK })
	for i, m := range p {
		address := net.JoinHostPort(m.conf.Members[i].Address, strconv.Itoa(m.conf.Port))
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // only looks at what it shows
		if err != nil {
			t.Fatal(err)
		}
		if got, want := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), int64(100+i); got != want {
			t.Errorf("%s shows serial %d, want %d", m.conf.Name, got, want)
		}
		if conn.ConnectionState().Version != tls.VersionTLS13 {
			t.Error("not TLS 1.3")
		}
		_ = conn.Close()
	}
}

// A new authority takes over: first both roots in the files, then identities
// of the new one. Members restart by themselves for it and keep what they hold.
func TestNewAuthority(t *testing.T) {
	p, old := startThree(t)
	p[0].must(t, request{Op: "announce", Key: "w/alive", Data: "1"})
	next := mtlstest.New(t, "test")
	both := slices.Concat(old.Bundle, next.Bundle)
	for _, m := range p {
		if err := os.WriteFile(m.conf.CA, both, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// One after another, each takes identities of the new authority; nobody could before it reread the roots.
	for i, m := range p {
		issue(t, next, m.conf, "node", int64(100+i), time.Hour)
		if err := os.WriteFile(m.conf.CA, both, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range p {
		m.kill()
		m.start(t)
		eventually(t, 30*time.Second, m.conf.Name+" in step with the new authority", func() bool {
			return m.call(t, request{Op: "quorum"}).OK && (i > 0 || m.call(t, request{Op: "announce", Key: "w/alive", Data: "2"}).Err == "")
		})
	}
	eventually(t, 15*time.Second, "the announcement", func() bool { return p[2].call(t, request{Op: "watched"}).Values["w/alive"] == "2" })
}

// Nothing but the peers' port is listened on.
func TestListeners(t *testing.T) {
	p, _ := startThree(t)
	for _, m := range p {
		if got, want := m.listeners(t), []int{m.conf.Port}; !slices.Equal(got, want) {
			t.Errorf("%s: listens on %v, want %v", m.conf.Name, got, want)
		}
		info, err := os.Stat(m.conf.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o700 {
			t.Errorf("folder: got mode %v, want 0700", got)
		}
	}
}

// When the leader dies, whoever holds something keeps it.
func TestLeaderDies(t *testing.T) {
	p, _ := startThree(t)
	leader, others := roles(t, p)
	holder := others[0]
	holder.must(t, request{Op: "acquire", Key: "w/address", Data: holder.conf.Name})
	leader.kill()
	killed, gaps := time.Now(), 0
	took := eventually(t, 20*time.Second, "a new leader", func() bool {
		if !holder.call(t, request{Op: "holds", Key: "w/address"}).OK {
			gaps++
		}
		return others[0].call(t, request{Op: "leader"}).OK || others[1].call(t, request{Op: "leader"}).OK
	})
	t.Logf("new leader after %v, with %d looks at which the holder was not sure", took, gaps)
	eventually(t, 10*time.Second, "changes accepted", func() bool { return others[1].call(t, request{Op: "put", Key: "a", Data: "1"}).Err == "" })
	t.Logf("changes accepted after %v", time.Since(killed))
	if got := holder.call(t, request{Op: "acquire", Key: "w/address", Data: holder.conf.Name}); !got.OK {
		t.Errorf("what was held before the leader died is held by another: %+v", got)
	}
}

func TestWithoutQuorum(t *testing.T) {
	p, _ := startThree(t)
	p[0].must(t, request{Op: "put", Key: "w/a", Data: "1"})
	p[0].must(t, request{Op: "announce", Key: "w/alive", Data: "1"})
	p[1].kill()
	p[2].kill()
	start := time.Now()
	got := p[0].call(t, request{Op: "put", Key: "w/a", Data: "2"})
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("put: answered after %v, want an end well before 10s", took)
	}
	if want := "the cluster has no quorum: 1 of 3 servers reachable; changes are refused until another is back"; got.Kind != "quorum" || !strings.Contains(got.Err, want) {
		t.Errorf("put: got %q, want %q", got.Err, want)
	}
	eventually(t, 10*time.Second, "known as without quorum", func() bool {
		return !p[0].call(t, request{Op: "quorum"}).OK && !p[0].call(t, request{Op: "valid"}).OK
	})
	for _, op := range []string{"get", "swap", "acquire", "announce", "check"} {
		start := time.Now()
		if got := p[0].call(t, request{Op: op, Key: "x", Data: "1"}); got.Kind != "quorum" {
			t.Errorf("%s: got %+v, want no quorum", op, got)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s: answered after %v, want an end well before 10s", op, took)
		}
	}

	// A restart alone: the last content is still there to read.
	p[0].kill()
	p[0].start(t)
	eventually(t, 10*time.Second, "the last content", func() bool { return p[0].call(t, request{Op: "watched"}).Values["w/a"] != "" })

	p[1].start(t)
	eventually(t, 20*time.Second, "a quorum of two", func() bool { return p[0].call(t, request{Op: "quorum"}).OK })
	p[0].must(t, request{Op: "put", Key: "w/a", Data: "3"})
	eventually(t, 15*time.Second, "the change seen by the other", func() bool { return p[1].call(t, request{Op: "watched"}).Values["w/a"] == "3" })
	p[2].start(t)
	eventually(t, 20*time.Second, "the third in step", func() bool { return p[2].call(t, request{Op: "watched"}).Values["w/a"] == "3" })
}

// A member that was frozen lost its lease; what it announced comes back by itself.
func TestAnnouncedAgain(t *testing.T) {
	p, _ := startThree(t)
	_, others := roles(t, p)
	frozen, other := others[0], others[1]
	frozen.must(t, request{Op: "announce", Key: "w/alive", Data: "yes"})
	frozen.must(t, request{Op: "acquire", Key: "w/address", Data: frozen.conf.Name})
	frozen.freeze(t, true)
	eventually(t, 15*time.Second, "the announcement gone", func() bool { return len(other.call(t, request{Op: "watched"}).Values) == 0 })
	other.must(t, request{Op: "acquire", Key: "w/address", Data: other.conf.Name})
	frozen.freeze(t, false)
	if frozen.call(t, request{Op: "holds", Key: "w/address"}).OK {
		t.Error("holds after the freeze: got true, want false at once")
	}
	eventually(t, 15*time.Second, "announced again", func() bool { return other.call(t, request{Op: "watched"}).Values["w/alive"] == "yes" })
}

// Members start long after one another, and one stops in order.
func TestAnyOrder(t *testing.T) {
	p, _ := three(t)
	p[2].start(t)
	if got := p[2].call(t, request{Op: "put", Key: "a", Data: "1"}); got.Kind != "quorum" {
		t.Errorf("put while alone: got %+v, want no quorum", got)
	}
	p[0].start(t)
	eventually(t, 20*time.Second, "a quorum of two", func() bool { return p[2].call(t, request{Op: "quorum"}).OK })
	p[2].must(t, request{Op: "put", Key: "w/a", Data: "1"})
	p[1].start(t)
	eventually(t, 20*time.Second, "the last in step", func() bool { return p[1].call(t, request{Op: "watched"}).Values["w/a"] == "1" })
	start := time.Now()
	p[0].stop(t)
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("stop: took %v, want an end", took)
	}
	eventually(t, 15*time.Second, "changes without it", func() bool { return p[1].call(t, request{Op: "put", Key: "a", Data: "2"}).Err == "" })
}

// A store that is full is every member's trouble: nothing can be changed any more.
func TestFullStore(t *testing.T) {
	p, _ := startThree(t)
	if got := p[1].call(t, request{Op: "check"}); got.Err != "" {
		t.Fatalf("check: got %q, want no trouble", got.Err)
	}
	p[0].must(t, request{Op: "alarm"})
	for _, m := range p {
		eventually(t, 10*time.Second, "the alarm at "+m.conf.Name, func() bool {
			return strings.Contains(m.call(t, request{Op: "check"}).Err, "NOSPACE")
		})
	}
	if got := p[2].call(t, request{Op: "put", Key: "a", Data: "1"}); got.Err == "" {
		t.Error("put: got no error, want that a full store refuses it")
	}
}
