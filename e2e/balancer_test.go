package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"trivet/internal/part"
)

// The balancer under a steady load, while what is behind it and beside it
// breaks, changes and misbehaves.
func TestBalancer(t *testing.T) {
	c := newChaos(t)
	for _, s := range []struct {
		name string
		test func(*testing.T)
	}{
		{"process is killed", c.processIsKilled},
		{"app misbehaves", c.appMisbehaves},
		{"server is frozen", c.serverIsFrozen},
		{"server is killed", c.serverIsKilled},
		{"reload", c.reload},
		{"drain", c.drain},
		{"passthrough", c.passthrough},
		{"one request", c.oneRequest},
		{"HTTP/3", c.http3},
		{"HTTP/3 under load", c.http3UnderLoad},
		{"slow clients", c.slowClients},
		{"too many connections", c.tooManyConnections},
		{"upgrade", c.upgrade},
	} {
		t.Run(s.name, func(t *testing.T) {
			ensureUp(t)
			s.test(t)
		})
	}
}

// chaos is the site whose app misbehaves on command, in a folder of its own.
type chaos struct {
	dir   string
	large []byte // the file of that name, which no socket's buffers hold
}

// medium is how many bytes of it the file medium holds.
const medium = 8 << 20

// newChaos puts the site in force; afterwards the example is again.
func newChaos(t *testing.T) chaos {
	t.Helper()
	ensureUp(t)
	eventually(t, 60*time.Second, "the end of former processes", func() bool { return finishing(t) == 0 })
	c := chaos{filepath.Join(t.TempDir(), "chaos"), bytes.Repeat([]byte("sixteen bytes.\r\n"), 4<<20)}
	if err := os.CopyFS(c.dir, os.DirFS(filepath.Join(ring.Root, "e2e", "chaos"))); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"large": c.large, "medium": c.large[:medium]} {
		if err := os.WriteFile(filepath.Join(c.dir, "static", name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.apply(t, "")
	example := ring.Site
	ring.Site = c.file() // also for who brings the ring up again
	t.Cleanup(func() {
		ring.Site = example
		if _, err := ring.Run(context.Background(), "apply", "--site", ring.Site); err != nil {
			t.Error(err)
		}
	})
	return c
}

// apply puts the site in force with those lines of the part balancer.
func (c chaos) apply(t *testing.T, balancer string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.dir, "site.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if balancer != "" {
		data = append(data, "balancer:\n"+balancer...)
	}
	if err := os.WriteFile(c.file(), data, 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "apply", "--site", c.file())
}

// file is the site file that is in force.
func (c chaos) file() string { return filepath.Join(c.dir, "edited.yaml") }

// balancerOf is what the balancer of a server says of itself.
func balancerOf(t *testing.T, server string) part.BalancerStatus {
	t.Helper()
	out, err := ring.Command(t.Context(), "balancer", "status", server, "--json").Output()
	var all []struct{ Balancer *part.BalancerStatus }
	if err := errors.Join(err, json.Unmarshal(out, &all)); err != nil || len(all) != 1 || all[0].Balancer == nil {
		t.Fatalf("balancer status of %s: %v\n%s", server, err, out)
	}
	return *all[0].Balancer
}

// backendOf is how the balancer of a server sees the web server of another.
func backendOf(t *testing.T, server, of string) part.BackendStatus {
	t.Helper()
	all := balancerOf(t, server).Backends
	i := slices.IndexFunc(all, func(b part.BackendStatus) bool { return b.Name == of })
	if i < 0 {
		t.Fatalf("the balancer of %s does not know %s: %v", server, of, all)
	}
	return all[i]
}

// inState waits until the balancer of a server sees that of another so, and
// returns how long after begun that was, as it says itself.
func inState(t *testing.T, server, of, state string, begun time.Time) time.Duration {
	t.Helper()
	var since time.Time
	eventually(t, 20*time.Second, of+" is "+state+" for "+server, func() bool {
		b := backendOf(t, server, of)
		since = b.Since
		return b.State == state
	})
	return since.Sub(begun)
}

// holderAndOther are the server that has the floating address, and one that has not.
func holderAndOther(t *testing.T) (holder, other string) {
	t.Helper()
	s, err := ring.Status(t.Context())
	if err != nil || s.AddressHolder == "" {
		t.Fatalf("nobody holds the address: %v", err)
	}
	return s.AddressHolder, Servers[(slices.Index(Servers, s.AddressHolder)+1)%len(Servers)]
}

// addressOf is a server's own.
func addressOf(server string) string { return ring.Address(1 + slices.Index(Servers, server)) }

// A killed process costs nobody an answer. Who was connected to a killed
// balancer has to connect anew; all else is not even noticed.
func (c chaos) processIsKilled(t *testing.T) {
	holder, other := holderAndOther(t)
	for _, k := range []struct{ name, server, word, address string }{
		{"web", other, "trivet worker web", ring.Floating()},
		{"app", other, "app/chaos", ring.Floating()},
		{"balancer of the holder", holder, "trivet worker balancer", ring.Floating()},
		{"balancer of another", other, "trivet worker balancer", addressOf(other)},
	} {
		t.Run(k.name, func(t *testing.T) {
			s := underLoad(t, k.address, func(*steady) {
				old := processes(t, k.server, k.word)
				if len(old) == 0 {
					t.Fatalf("%s runs no %s", k.server, k.word)
				}
				kill(t, old[0])
				eventually(t, 30*time.Second, "it runs again and all is healthy", func() bool {
					now := processes(t, k.server, k.word)
					s, err := ring.Status(t.Context())
					return err == nil && s.Healthy && len(now) == len(old) && !slices.Contains(now, old[0])
				})
			})
			if strings.Contains(k.word, "balancer") {
				s.none(t)
			} else {
				s.unnoticed(t)
			}
		})
	}
}

// An app that fails visitors while its health check is well costs no visitor
// an answer: another server is asked. Where servers take turns it is put out of
// the choice; where the faster one is chosen, it hardly ever is.
func (c chaos) appMisbehaves(t *testing.T) {
	for _, k := range []struct{ fault, policy string }{
		{"slow", "ewma"},
		{"reset", "ewma"},
		{"slow", "round-robin"},
		{"reset", "round-robin"},
		{"garbage", "round-robin"},
		{"half", "round-robin"},
		{"error", "round-robin"},
	} {
		t.Run(k.fault+" "+k.policy, func(t *testing.T) {
			c.apply(t, "  policy: "+k.policy+"\n  slow_start: 0s\n  eject:\n    for: 1s\n")
			c.misbehaves(t, k.fault, k.policy == "round-robin")
		})
	}
}

func (c chaos) misbehaves(t *testing.T, fault string, ejected bool) {
	holder, other := holderAndOther(t)
	file := filepath.Join(ring.Dir(other, "run"), "app", "chaos")
	t.Cleanup(func() { _ = os.Remove(file) })
	inState(t, holder, other, "up", time.Time{})
	var had, got uint64
	s := underLoad(t, ring.Floating(), func(s *steady) {
		had = backendOf(t, holder, other).Requests
		begun := time.Now()
		if err := os.WriteFile(file, []byte(fault), 0o644); err != nil {
			t.Fatal(err)
		}
		if ejected {
			t.Logf("ejected after %s", inState(t, holder, other, "ejected", begun).Round(time.Millisecond))
		}
		s.more(t, 2*steadyRate)
		got = backendOf(t, holder, other).Requests
		if b := balancerOf(t, holder); b.Shed > 0 || b.Queued > 0 {
			t.Logf("%+v", b)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		inState(t, holder, other, "up", begun)
	})
	f := s.unnoticed(t)
	slow := s.slower(500 * time.Millisecond)
	t.Logf("%d requests went to it; %d answers took longer than 500 ms", got-had, slow)
	if most := f.answered / 3; int(got-had) > most || slow > most {
		t.Errorf("%d requests went to a server that misbehaves, %d were slow, want at most %d", got-had, slow, most)
	}
}

// What a frozen server was sent is sent to another within a second.
func (c chaos) serverIsFrozen(t *testing.T) {
	holder, other := holderAndOther(t)
	var after time.Duration
	s := underLoad(t, ring.Floating(), func(s *steady) {
		begun := time.Now()
		must(t, "lab", "stop", other)
		after = inState(t, holder, other, "down", begun)
		s.more(t, steadyRate)
		must(t, "lab", "start", other)
	})
	t.Logf("down after %s", after.Round(time.Millisecond))
	if f := s.unnoticed(t); f.longest > 2*time.Second {
		t.Errorf("the longest request took %s, want that what a frozen server has is retried within 1 s (and 1 s for a busy machine)", f.longest)
	}
}

// A server that loses its power costs nobody an answer, but for those who were
// connected to it, the address's holder, and whose request it had acknowledged
// in that instant: nothing on the wire will tell them, and they wait for their
// own time limit. There are few, and no later request fails.
func (c chaos) serverIsKilled(t *testing.T) {
	for _, holds := range []bool{false, true} {
		name := map[bool]string{false: "another", true: "holder"}[holds]
		t.Run(name, func(t *testing.T) {
			ensureUp(t)
			holder, server := holderAndOther(t)
			if holds {
				server = holder
			}
			var moved time.Duration
			var dead time.Time
			most := 5
			s := underLoad(t, ring.Floating(), func(s *steady) {
				begun := time.Now()
				most = max(most, min(s.underWay(), 25)) // more than a few only where the machine is busy
				must(t, "lab", "kill", server)
				dead = time.Now()
				eventually(t, 20*time.Second, "the address is on a server that lives", func() bool {
					s, err := ring.Status(t.Context())
					return err == nil && s.AddressHolder != server && s.AddressHolder != ""
				})
				moved = time.Since(begun)
				s.more(t, steadyRate)
				must(t, "lab", "start", server)
			})
			if !holds {
				s.unnoticed(t)
				return
			}
			t.Logf("the address moved within %s", moved.Round(10*time.Millisecond))
			if n := s.forgive(dead); n > most {
				t.Errorf("%d requests ended with the server that had taken them, want at most %d", n, most)
			} else {
				t.Logf("%d requests ended with the server that had taken them", n)
			}
			s.none(t)
		})
	}
}
