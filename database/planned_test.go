package database

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/part"
)

// three are the servers s1, s2 and s3, alive and synced, with the changes given by name.
func three(changes map[string]func(*part.Member)) []part.Member {
	var out []part.Member
	for i := range 3 {
		m := part.Member{Name: fmt.Sprintf("s%d", i+1), Alive: true, Database: part.DatabaseMember{State: part.DatabaseSynced}}
		if f := changes[m.Name]; f != nil {
			f(&m)
		}
		out = append(out, m)
	}
	return out
}

func drained(m *part.Member) { m.Drained = true }
func short(m *part.Member)   { m.Database.Short = true }

// running is the view of a server whose database is synced with the two others'.
func running(self, writer string, changes map[string]func(*part.Member)) view {
	return view{
		self: self, members: three(changes), role: part.DatabaseRole{Writer: writer, Epoch: 7}, quorum: true, running: true,
		health: health{answers: true, ready: true, connected: true, inPrimary: true, state: stateSynced, names: []string{"s1", "s2", "s3"}},
	}
}

func TestSuccessor(t *testing.T) {
	type changes = map[string]func(*part.Member)
	for name, c := range map[string]struct {
		self, next string
		changes    changes
		want       string
	}{
		"drained":               {"s2", "", changes{"s2": drained}, "s1"},
		"not drained":           {"s2", "", nil, ""},
		"another is drained":    {"s2", "", changes{"s1": drained}, ""},
		"only drained ones":     {"s2", "", changes{"s1": drained, "s2": drained, "s3": drained}, ""},
		"the first is, too":     {"s2", "", changes{"s1": drained, "s2": drained}, "s3"},
		"planned already":       {"s2", "s3", changes{"s2": drained}, ""},
		"drained, not a writer": {"s1", "", changes{"s1": drained}, ""},
		"its disk is short":     {"s2", "", changes{"s2": short}, "s1"},
		"all disks are":         {"s2", "", changes{"s1": short, "s2": short, "s3": short}, ""},
		"one has room":          {"s2", "", changes{"s1": short, "s2": short}, "s3"},
		"drained, others short": {"s2", "", changes{"s1": short, "s2": drained, "s3": short}, "s1"},
		"drained, one has room": {"s2", "", changes{"s1": short, "s2": drained}, "s3"},
	} {
		v := running(c.self, "s2", c.changes)
		if self, _ := (part.State{Members: v.members}).Member(c.self); self.Database.Short {
			v.disk = disk{known: true, free: diskStop}
		}
		v.role.Next = c.next
		if got := v.successor(); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// A drained server is elected only if no other can be.
func TestElectDrained(t *testing.T) {
	lost := func(m *part.Member) { m.Alive = false }
	for _, c := range []struct {
		what    string
		changes map[string]func(*part.Member)
		want    string
	}{
		{"the first is drained", map[string]func(*part.Member){"s1": drained, "s2": lost}, "s3"},
		{"both are", map[string]func(*part.Member){"s1": drained, "s2": lost, "s3": drained}, "s1"},
	} {
		v := running("s3", "s2", c.changes)
		v.health.names = []string{"s1", "s3"}
		if got, _ := (ballot{v}).elect(); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

// The writer moves when no transaction is open, or none can be waited for any longer.
func TestMove(t *testing.T) {
	holds := func(m *part.Member) { m.Holds = 7 }
	gone := func(m *part.Member) { m.Alive, m.Holds = false, 0 }
	type changes = map[string]func(*part.Member)
	all := changes{"s1": holds, "s2": holds, "s3": holds}
	for name, c := range map[string]struct {
		changes changes
		open    func(after time.Duration) (int64, error)
		want    string
		after   time.Duration
	}{
		"nothing is open": {all, func(time.Duration) (int64, error) { return 0, nil }, "elect s2", 0},
		"something is for a moment": {all, func(after time.Duration) (int64, error) {
			return map[bool]int64{true: 3}[after < 300*time.Millisecond], nil
		}, "elect s2", 300 * time.Millisecond},
		"something is for long":     {all, func(time.Duration) (int64, error) { return 1, nil }, "elect s2", openLimit},
		"the router does not say":   {all, func(time.Duration) (int64, error) { return 0, errors.New("it does not answer") }, "elect s2", openLimit},
		"a router has not heard":    {changes{"s1": holds, "s2": holds}, func(time.Duration) (int64, error) { return 0, nil }, "elect s2", holdLimit},
		"a server is not there":     {changes{"s1": holds, "s2": holds, "s3": gone}, func(time.Duration) (int64, error) { return 0, nil }, "elect s2", 0},
		"the next is not, any more": {changes{"s1": holds, "s2": gone, "s3": holds}, func(time.Duration) (int64, error) { return 0, nil }, "plan ", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				var did []string
				d := New(Config{
					Server: "s1", Log: slog.New(slog.DiscardHandler),
					Open:        func(context.Context) (int64, error) { return c.open(time.Since(begun)) },
					ElectWriter: func(_ context.Context, _ int64, w string) error { did = append(did, "elect "+w); return nil },
					PlanWriter:  func(_ context.Context, _ int64, w string) error { did = append(did, "plan "+w); return nil },
				})
				role := part.DatabaseRole{Writer: "s1", Next: "s2", Epoch: 7}
				d.state = part.State{Server: "s1", Database: role, Members: three(c.changes)}
				d.move(t.Context(), role)
				if diff := cmp.Diff([]string{c.want}, did); diff != "" {
					t.Errorf("did (-want +got):\n%s", diff)
				}
				if took := time.Since(begun); took < c.after || took > c.after+5*openEvery {
					t.Errorf("took %s, want %s", took, c.after)
				}
			})
		})
	}
}

// Restarted by an operator, mariadbd is another process with the same data.
func testRestart(t *testing.T, s *single) {
	s.exec(t, s.db, "CREATE TABLE foobar.kept (id INT PRIMARY KEY)", "INSERT INTO foobar.kept VALUES (1)")
	pid := func() int {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		return s.d.process.PID()
	}
	before := pid()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := s.d.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if after := pid(); after == before {
		t.Errorf("mariadbd is process %d as before", after)
	}
	s.exec(t, s.as(t, "foobar", secret, "foobar"), "INSERT INTO kept VALUES (2)")
	// One that is not synced in time is an error, and goes on all the same.
	short, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("after a moment"))
	defer cancel()
	if err := s.d.Restart(short); err == nil || !strings.Contains(err.Error(), "not synced again: after a moment") {
		t.Errorf("restart in no time: got %v", err)
	}
	after := pid()
	s.until(t, "it is restarted all the same", func() bool {
		s.d.mu.Lock()
		again := s.d.process != nil && s.d.process.PID() != after
		s.d.mu.Unlock()
		return again && s.d.Check(t.Context()) == nil && s.d.Status().State == part.DatabaseSynced
	})
}
