package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each server in turn loses its power and gets it back, under load: no failed
// GET, no acknowledged post lost, posts resume within 5 s, and the address
// moves when its holder dies.
func TestKillEachServer(t *testing.T) {
	for _, server := range Servers {
		t.Run(server, func(t *testing.T) {
			ensureUp(t)
			before, err := ring.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s holds the address, %s is the writer", before.AddressHolder, before.Writer)
			var begun, resumed time.Time
			l := load(t, func(l *Load) {
				begun = time.Now()
				must(t, "lab", "kill", server)
				eventually(t, 20*time.Second, "the address and the writer are on a server that lives", func() bool {
					s, err := ring.Status(t.Context())
					return err == nil && s.AddressHolder != server && s.Writer != server && s.AddressHolder != "" && s.Writer != ""
				})
				n := acked(l)
				eventually(t, 20*time.Second, "posts are acknowledged again", func() bool { return acked(l) > n+20 })
				resumed = time.Now()
				must(t, "lab", "start", server)
			})
			l.whole(t)
			gap := l.Gap(begun, resumed)
			t.Logf("longest gap between acknowledged posts: %.2f s", gap.Seconds())
			if gap > 5*time.Second {
				t.Errorf("posts resumed after %s, want at most 5 s", gap)
			}
		})
	}
}

func acked(l *Load) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.Acked)
}

// A server that is frozen, or cut off, costs no acknowledged post. Where it
// does not hold the address it costs no GET either; where it does, those that
// it had taken before the address moved are its own, and no later one fails.
func TestFreezeAndCut(t *testing.T) {
	for _, c := range []struct {
		fault, end string
		holder     bool
	}{{"stop", "start", false}, {"cut", "heal", false}, {"stop", "start", true}, {"cut", "heal", true}} {
		t.Run(fmt.Sprintf("%s/holder=%v", c.fault, c.holder), func(t *testing.T) {
			ensureUp(t)
			s, err := ring.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			server := Servers[slices.IndexFunc(Servers, func(n string) bool { return (n == s.AddressHolder) == c.holder })]
			var moved time.Time
			l := load(t, func(l *Load) {
				must(t, "lab", c.fault, server)
				eventually(t, 20*time.Second, "address and writer are on servers that answer", func() bool {
					s, err := ring.Status(t.Context())
					return err == nil && s.AddressHolder != server && s.Writer != server && s.AddressHolder != "" && s.Writer != ""
				})
				moved = time.Now()
				n := acked(l)
				eventually(t, 20*time.Second, "posts are acknowledged again", func() bool { return acked(l) > n+20 })
				must(t, "lab", c.end, server)
			})
			if c.holder {
				l.forgive(moved)
			}
			l.whole(t)
		})
	}
}

// Killing node leaves everything serving; the new node adopts mariadbd, workers and app without a restart.
func TestNodeIsKilled(t *testing.T) {
	ensureUp(t)
	words := []string{"mariadbd", "trivet worker balancer", "trivet worker web", "trivet worker router", "trivet worker monitor", "foobar"}
	for _, server := range Servers {
		before := map[string][]int{}
		for _, w := range words {
			if before[w] = processes(t, server, w); len(before[w]) == 0 {
				t.Fatalf("%s runs no %s", server, w)
			}
		}
		l := load(t, func(*Load) {
			old := processes(t, server, "trivet node")
			kill(t, old...)
			eventually(t, 20*time.Second, "a new node runs and all is healthy", func() bool {
				now := processes(t, server, "trivet node")
				s, err := ring.Status(t.Context())
				return err == nil && s.Healthy && len(now) == 1 && !slices.Equal(now, old)
			})
		})
		l.whole(t)
		if len(l.Lost) > 0 {
			t.Errorf("%d posts were not acknowledged, the first: %s", len(l.Lost), l.Lost[0])
		}
		for _, w := range words {
			if now := processes(t, server, w); !slices.Equal(now, before[w]) {
				t.Errorf("%s: %s ran as %v, now as %v: it was restarted", server, w, before[w], now)
			}
		}
	}
}

// A killed process of any kind costs no safe request: its socket is held, or another server answers.
func TestProcessIsKilled(t *testing.T) {
	ensureUp(t)
	s, err := ring.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"trivet worker balancer", "trivet worker web", "trivet worker router", "trivet worker monitor", "foobar", "mariadbd"} {
		t.Run(strings.TrimPrefix(word, "trivet worker "), func(t *testing.T) {
			server := s.AddressHolder
			if word == "mariadbd" || word == "trivet worker router" {
				server = s.Writer
			}
			l := load(t, func(*Load) {
				old := processes(t, server, word)
				if len(old) == 0 {
					t.Fatalf("%s runs no %s", server, word)
				}
				kill(t, old[0])
				eventually(t, 60*time.Second, "it runs again and all is healthy", func() bool {
					now := processes(t, server, word)
					s, err := ring.Status(t.Context())
					return err == nil && s.Healthy && len(now) == len(old) && !slices.Contains(now, old[0])
				})
			})
			l.whole(t)
		})
	}
}

func kill(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill %d: %v", pid, err)
		}
	}
}

// Two servers die: what is left serves files, refuses changes with a clear word, and all recovers by itself.
func TestWithoutQuorum(t *testing.T) {
	ensureUp(t)
	text := fmt.Sprintf("before the quorum is lost %d", time.Now().UnixNano())
	post(t, visitor(t, ring.Address(1)), text)
	must(t, "lab", "kill", "s2")
	must(t, "lab", "kill", "s3")
	one := visitor(t, ring.Address(1))
	eventually(t, 20*time.Second, "the one left serves files", func() bool {
		res, err := one.Get("https://" + Domain + "/style.css")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == 200
	})
	eventually(t, 20*time.Second, "the status says that there is no quorum", func() bool {
		s, err := ring.Status(t.Context())
		return err == nil && !s.Quorum
	})
	if out, err := ring.Run(t.Context(), "apply", "--site", changedSite(t, 3)); err == nil || !strings.Contains(out, "quorum") {
		t.Errorf("apply without quorum: %v, %s", err, out)
	}
	// Both are started; each command returns when its server is healthy again.
	both := make(chan error, 2)
	for _, server := range []string{"s2", "s3"} {
		go func() {
			_, err := ring.Run(t.Context(), "lab", "start", server)
			both <- err
		}()
	}
	for range 2 {
		if err := <-both; err != nil {
			t.Error(err)
		}
	}
	eventually(t, 60*time.Second, "all is healthy again", func() bool {
		s, err := ring.Status(t.Context())
		return err == nil && s.Healthy
	})
	if _, body := get(t, visitor(t, ring.Floating()), "/"); !strings.Contains(body, text) {
		t.Error("a message that was acknowledged before is gone")
	}
}

// A machine crash kills everything; up brings it back with all that was acknowledged.
func TestMachineCrash(t *testing.T) {
	ensureUp(t)
	text := fmt.Sprintf("before the crash %d", time.Now().UnixNano())
	post(t, visitor(t, ring.Floating()), text)
	for _, server := range Servers {
		kill(t, processes(t, server, "lab-init")...)
	}
	if out, err := ring.Up(t.Context()); err != nil {
		t.Fatalf("up after a crash: %v\n%s", err, out)
	}
	if _, body := get(t, visitor(t, ring.Floating()), "/"); !strings.Contains(body, text) {
		t.Error("a message that was acknowledged before the crash is gone")
	}
}

// A changed site is put in force without a failed request, and plan says before what will change.
func TestApply(t *testing.T) {
	ensureUp(t)
	changed := changedSite(t, 3)
	if out := must(t, "plan", "--site", changed); !strings.Contains(out, "roll 3 instances") {
		t.Errorf("plan says %q", out)
	}
	l := load(t, func(*Load) {
		must(t, "apply", "--site", changed)
		must(t, "apply", "--site", ring.Site)
	})
	l.whole(t)
	if len(l.Lost) > 0 {
		t.Errorf("%d posts were not acknowledged, the first: %s", len(l.Lost), l.Lost[0])
	}
	if out := must(t, "plan", "--site", ring.Site); !strings.Contains(out, "nothing would change") {
		t.Errorf("plan of what is in force says %q", out)
	}
}

// changedSite writes a copy of the site file with another number of app instances.
func changedSite(t *testing.T, instances int) string {
	t.Helper()
	return editedSite(t, func(text string) string {
		return regexp.MustCompile(`(?m)^(\s+instances:) \d+`).ReplaceAllString(text, fmt.Sprintf("$1 %d", instances))
	})
}
