package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// bubble runs f with a clock of its own, and then lets what ends by itself end:
// it fails if a goroutine is left.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t)
		time.Sleep(5 * time.Minute)
	})
}

// watched is a pool that says what it tells.
func watched(s Settings, targets ...*Target) (p *Pool, told func() []string) {
	var mu sync.Mutex
	var all []string
	tell := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, what)
	}
	p = NewPool(PoolConfig{
		Suspect: func(g *Target) { tell("suspect " + g.Name()) },
		Changed: func(g *Target, from, to, why string) { tell(fmt.Sprintf("%s %s→%s: %s", g.Name(), from, to, why)) },
	})
	s.Targets = targets
	p.Set(s)
	return p, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

func TestLateAndTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := inertTarget("a", 1)
		_, told := watched(Settings{Timeout: 2 * time.Second}, g)
		c := dialed(t, g)
		c.Await(Now())
		time.Sleep(140 * time.Millisecond)
		if len(told()) > 0 {
			t.Errorf("after 140 ms: got %q, want nothing", told())
		}
		time.Sleep(80 * time.Millisecond)
		if diff := cmp.Diff([]string{"suspect a"}, told()); diff != "" {
			t.Errorf("after 220 ms: %s", diff)
		}
		time.Sleep(500 * time.Millisecond)
		if n := len(told()); n != 2 {
			t.Errorf("after 720 ms: suspect %d times, want 2", n)
		}
		time.Sleep(1200 * time.Millisecond)
		if err := c.Cause(); err != nil {
			t.Errorf("after 1.92 s: got %v, want nil", err)
		}
		time.Sleep(200 * time.Millisecond)
		if err := c.Came(Now()); err != ErrHeadTimeout {
			t.Errorf("after 2.12 s: got %v, want %v", err, ErrHeadTimeout)
		}
		c.Done(Late, true)
	})
}

// TestNothingTicksWhenIdle relies on the bubble: it does not end while a goroutine is left.
func TestNothingTicksWhenIdle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := inertPool(everything(EWMA), 1, 1)
		for range 10 {
			if !cycle(p, &Choice{}) {
				t.Fatal("refused")
			}
		}
		time.Sleep(3 * time.Second)
		if p.sweeping.Load() {
			t.Error("the sweep goes on with nothing under way")
		}
		cycle(p, &Choice{})
		if !p.sweeping.Load() {
			t.Error("the sweep does not begin anew")
		}
		time.Sleep(2 * time.Minute)
		for _, g := range p.Targets() {
			if n := g.Status().Kept; n != 0 {
				t.Errorf("%s keeps %d connections beyond their time", g.Name(), n)
			}
		}
	})
}

func TestRetiredTargetIsLookedAfter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := inertTarget("a", 1)
		p, _ := watched(Settings{Timeout: time.Second}, g)
		c := dialed(t, g)
		c.Await(Now())
		p.Set(Settings{Timeout: time.Second})
		time.Sleep(2 * time.Second)
		if err := c.Cause(); err != ErrHeadTimeout {
			t.Errorf("request at a target that was taken out: got %v, want %v", err, ErrHeadTimeout)
		}
		c.Done(Late, false)
	})
}

func TestTunnelIsNotLookedAfter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := inertPool(Settings{InFlight: 1, Timeout: time.Second}, 1)
		g := p.Targets()[0]
		c := dialed(t, g)
		c.Await(Now())
		if err := c.Came(Now()); err != nil {
			t.Fatal(err)
		}
		c.Tunnel()
		time.Sleep(time.Minute)
		if p.sweeping.Load() {
			t.Error("the sweep goes on for a tunnel")
		}
		if p.Choose(&Choice{}) == nil {
			t.Error("a tunnel takes the place of a request")
		}
		if n := g.InFlight(); n != 1 {
			t.Errorf("with the target: got %d, want 1", n)
		}
		c.Done(OK, true)
		if s := g.Status(); s.InFlight != 0 || s.Kept != 0 {
			t.Errorf("after it: got %+v", s)
		}
	})
}

// A connection that was passed through has never had an answer's head.
func TestTunnelIsNotTakenBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := inertPool(Settings{Timeout: time.Second}, 1)
		g := p.Targets()[0]
		c := dialed(t, g)
		c.Tunnel()
		g.SetState(Down, "")
		time.Sleep(time.Minute)
		if err := c.Cause(); err != nil {
			t.Errorf("when its target went down: got %v, want nil", err)
		}
		if n := p.gate.begun.Load(); n != 0 {
			t.Errorf("counted as begun: got %d, want 0", n)
		}
		c.Done(OK, false)
	})
}

func TestWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := inertTarget("a", 1)
		p, _ := watched(Settings{}, g)
		g.SetState(Down, "")
		begin := time.Now()
		if err := p.Wait(t.Context(), begin.Add(time.Second)); err != ErrNoTarget {
			t.Errorf("nobody comes: got %v, want %v", err, ErrNoTarget)
		}
		time.AfterFunc(100*time.Millisecond, func() { g.SetState(Up, "") })
		if err := p.Wait(t.Context(), time.Now().Add(time.Second)); err != nil {
			t.Errorf("the target comes back: got %v, want nil", err)
		}
		if got := time.Since(begin); got != 1100*time.Millisecond {
			t.Errorf("waited in all: got %s, want 1.1s", got)
		}
		begin = time.Now()
		if err := p.Wait(t.Context(), begin.Add(time.Second)); err != nil || time.Since(begin) != waitLeast {
			t.Errorf("what is usable was tried: got %v after %s, want nil after %s", err, time.Since(begin), waitLeast)
		}
		g.Skip(300 * time.Millisecond)
		if err := p.Wait(t.Context(), time.Now().Add(time.Second)); err != nil {
			t.Errorf("a skip that ends: got %v, want nil", err)
		}
		g.SetState(Down, "")
		cause := errors.New("client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(cause) })
		if err := p.Wait(ctx, time.Now().Add(time.Second)); err != cause {
			t.Errorf("the client goes: got %v, want %v", err, cause)
		}
	})
}

func TestEjectionByErrors(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, c := inertTarget("a", 1), inertTarget("b", 1), inertTarget("c", 1)
		p, told := watched(Settings{Eject: Ejection{Errors: 3, For: 10 * time.Second, Most: 50}}, a, b, c)
		bad := func(g *Target) {
			for range 3 {
				exchange(t, g, time.Millisecond, Bad)
			}
		}
		exchange(t, a, time.Millisecond, Bad)
		exchange(t, a, time.Millisecond, Bad)
		exchange(t, a, time.Millisecond, OK)
		exchange(t, a, time.Millisecond, Bad)
		if got := a.Status().State; got != "up" {
			t.Errorf("errors with a good answer between: got %s, want up", got)
		}
		bad(a)
		if got := a.Status(); got.State != "ejected" || time.Until(got.Until) != 10*time.Second || got.Failures != 6 {
			t.Errorf("3 errors: got %+v", got)
		}
		bad(b)
		if got := b.Status().State; got != "up" {
			t.Errorf("more than half of three: got %s, want up", got)
		}
		c.SetState(Down, "gone")
		b.SetState(Down, "gone")
		if got := p.Choose(&Choice{}); got != a {
			t.Error("the last resort is not chosen")
		}
		b.SetState(Up, "")
		time.Sleep(10*time.Second + 1)
		bad(a)
		if got := time.Until(a.Status().Until); got != 20*time.Second {
			t.Errorf("the second time in a row: out for %s, want 20s", got)
		}
		time.Sleep(2 * time.Minute)
		bad(a)
		if got := time.Until(a.Status().Until); got != 10*time.Second {
			t.Errorf("after a good while: out for %s, want 10s", got)
		}
		if diff := cmp.Diff("a up→ejected: 3 errors", told()[0]); diff != "" {
			t.Error(diff)
		}
	})
}

// A server whose app fails, while half of what it is asked is files, is ejected all the same.
func TestEjectionWithGoodAnswersBetween(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := inertTarget("a", 1), inertTarget("b", 1)
		watched(Settings{Eject: Ejection{Errors: 5, For: time.Minute, Most: 50}}, a, b)
		for range 5 {
			for _, o := range []Outcome{Bad, OK, Bad} {
				exchange(t, a, time.Millisecond, o)
			}
		}
		if got := a.Status().State; got != "ejected" {
			t.Errorf("two errors to each good answer: got %s, want ejected", got)
		}
	})
}

func TestLastUsableIsNotEjected(t *testing.T) {
	a, b := inertTarget("a", 1), inertTarget("b", 1)
	watched(Settings{Eject: Ejection{Errors: 1, For: time.Minute, Most: 100}}, a, b)
	b.SetState(Down, "")
	exchange(t, a, time.Millisecond, Broken)
	if got := a.Status().State; got != "up" {
		t.Errorf("the only one left: got %s, want up", got)
	}
}

func TestBrokenKeptConnectionIsNoError(t *testing.T) {
	a, b := inertTarget("a", 1), inertTarget("b", 1)
	watched(Settings{Eject: Ejection{Errors: 1, For: time.Minute, Most: 50}}, a, b)
	exchange(t, a, time.Millisecond, OK)
	exchange(t, a, time.Millisecond, Broken) // on the kept one
	if got := a.Status(); got.State != "up" || got.Failures != 1 {
		t.Errorf("a kept connection broke: got %+v, want that it is up", got)
	}
	exchange(t, a, time.Millisecond, Broken)
	if got := a.Status().State; got != "ejected" {
		t.Errorf("a new connection broke: got %s, want ejected", got)
	}
}

func TestEjectionOfOutliers(t *testing.T) {
	tests := []struct {
		name string
		slow time.Duration
		n    int
		want string
	}{
		{"much slower", 300 * time.Millisecond, 30, "ejected"},
		{"not that much slower", 80 * time.Millisecond, 30, "up"},
		{"too few answers", 300 * time.Millisecond, 15, "up"},
		{"fast as it is", 15 * time.Millisecond, 30, "up"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b, c := inertTarget("a", 1), inertTarget("b", 1), inertTarget("c", 1)
				fast := 10 * time.Millisecond
				if tt.slow == 15*time.Millisecond {
					fast = time.Millisecond
				}
				watched(Settings{Eject: Ejection{Slower: 10, For: time.Minute, Most: 50}}, a, b, c)
				for i := range tt.n {
					exchange(t, a, tt.slow, OK)
					exchange(t, b, fast, OK)
					took := fast
					if i == 3 {
						took = time.Minute // one long report
					}
					exchange(t, c, took, OK)
				}
				time.Sleep(1500 * time.Millisecond)
				got := map[string]string{"a": a.Status().State, "b": b.Status().State, "c": c.Status().State}
				if diff := cmp.Diff(map[string]string{"a": tt.want, "b": "up", "c": "up"}, got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestSlowStartAfterUnwell(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := inertTarget("a", 4)
		_, told := watched(Settings{SlowStart: 10 * time.Second}, g)
		g.SetState(Unwell, "answers 503")
		g.SetState(Up, "")
		g.SetState(Down, "silent")
		g.SetState(Unwell, "answers 503")
		g.SetState(Unwell, "answers 500")
		if got := g.Status(); got.Why != "answers 500" {
			t.Errorf("why: got %+v", got)
		}
		g.SetState(Up, "")
		if got := g.Status(); got.State != "slow-start" || got.Effective != 0.4 || got.Why != "" {
			t.Errorf("as it comes back: got %+v, want slow-start with 0.4", got)
		}
		time.Sleep(10 * time.Second)
		if got := g.Status(); got.State != "up" || got.Effective != 4 {
			t.Errorf("10 s later: got %+v, want up with 4", got)
		}
		want := []string{
			"a up→unwell: answers 503", "a unwell→up: ", "a up→down: silent", "a down→unwell: answers 503",
			"a unwell→slow-start: ", "a slow-start→up: ",
		}
		if diff := cmp.Diff(want, told()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRetryBudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := inertPool(Settings{Budget: 0.2}, 1)
		count := func() (n int) {
			for p.TakeRetry() {
				n++
			}
			return n
		}
		got := []int{count()}
		time.Sleep(500 * time.Millisecond)
		got = append(got, count())
		for range 50 {
			pass, err := p.Enter(context.Background)
			if err != nil {
				t.Fatal(err)
			}
			p.Leave(pass, OK)
		}
		got = append(got, count())
		time.Sleep(time.Hour)
		got = append(got, count())
		if diff := cmp.Diff([]int{10, 5, 10, 100}, got); diff != "" {
			t.Errorf("retries at first, after half a second, after 50 requests, after an hour: %s", diff)
		}
	})
}
