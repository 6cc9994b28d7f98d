package upstream

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/quick"
	"time"

	"github.com/google/go-cmp/cmp"
)

// cycle is what the pool does for one request in the steady state.
func cycle(p *Pool, choice *Choice) bool {
	now := Now()
	pass, err := p.Enter(context.Background)
	if err != nil {
		return false
	}
	choice.Now = now
	g := p.Choose(choice)
	c := g.Take(now, false)
	if c == nil {
		c, _ = g.Dial(context.Background())
	}
	c.Begin()
	c.Await(now)
	if c.Came(now+int64(time.Millisecond)) != nil {
		return false
	}
	p.Leave(pass, OK)
	c.Done(OK, true)
	return true
}

func everything(policy Policy) Settings {
	return Settings{
		Policy: policy, Budget: 0.2, Timeout: time.Second, Patience: time.Second, InFlight: 512, Queue: 1024, Adaptive: true,
		Eject: Ejection{Errors: 5, Slower: 10, For: time.Second, Most: 50}, SlowStart: time.Second,
	}
}

func TestNoAllocation(t *testing.T) {
	for policy := range Policy(len(policies)) {
		t.Run(policy.String(), func(t *testing.T) {
			p := inertPool(everything(policy), 100, 100, 50)
			choice := &Choice{HasKey: true, Sticky: "nobody"}
			for range 100 {
				cycle(p, choice)
			}
			got := testing.AllocsPerRun(1000, func() {
				choice.Key = mix(choice.Key + 1)
				if !cycle(p, choice) {
					t.Fatal("a request was refused")
				}
			})
			if got != 0 {
				t.Errorf("allocations for each request: got %v, want 0", got)
			}
			if n := p.InFlight(); n != 0 {
				t.Errorf("in flight when all is over: got %d, want 0", n)
			}
		})
	}
}

// TestBooksBalance has everything happen at once, and looks at what is left.
func TestBooksBalance(t *testing.T) {
	s := everything(EWMA)
	s.InFlight, s.Queue, s.Patience, s.SkipRefused = 4, 8, 20*time.Millisecond, time.Millisecond
	p := inertPool(s, 1, 2, 3)
	all := p.Targets()
	stop := make(chan struct{})
	var visitors, operators sync.WaitGroup
	for i := range 16 {
		visitors.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for range 2000 {
				visit(p, random)
			}
		})
	}
	operators.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			all[i%3].SetState(State(i%4), "")
			all[(i+1)%3].Drain(i%5 == 0)
			next := *p.Settings()
			next.Policy, next.Targets = Policy(i%4), all[:2+i%2]
			p.Set(next)
			_, _ = p.Status(), all[i%3].Status()
		}
	})
	visitors.Wait()
	close(stop)
	operators.Wait()
	for _, g := range all {
		until(t, "no opening is under way", func() bool { g.mu.Lock(); defer g.mu.Unlock(); return g.opening == 0 })
		g.Retire()
		if n, open := g.InFlight(), len(g.open); n != 0 || open != 0 || len(g.waiting) != 0 {
			t.Errorf("%s: got %d in flight, %d open, %d waiting, want none", g.Name(), n, open, len(g.waiting))
		}
	}
	got := []int64{p.gate.inside.Load(), p.gate.begun.Load(), p.gate.awaited.Load(), p.Status().Queued}
	if diff := cmp.Diff([]int64{0, 0, 0, 0}, got); diff != "" {
		t.Errorf("inside, begun, awaited, queued: %s", diff)
	}
}

// visit is one request, however it goes.
func visit(p *Pool, random *rand.Rand) {
	pass, err := p.Enter(context.Background)
	if err != nil {
		return
	}
	o := Outcome(random.IntN(int(Cancelled) + 1))
	defer p.Leave(pass, o)
	g := p.Choose(&Choice{Key: random.Uint64(), HasKey: true, Sticky: "b"})
	if g == nil {
		return
	}
	c := g.Take(Now(), false)
	if c == nil {
		if c, err = g.Dial(context.Background()); err != nil {
			return
		}
	}
	c.Begin()
	c.Await(Now())
	switch {
	case random.IntN(10) == 0:
		c.Interrupt(context.Canceled)
	case o == OK || o == Bad:
		_ = c.Came(Now())
	}
	c.Done(o, o == OK)
}

// TestSpread is the promise of spread, whatever the time.
func TestSpread(t *testing.T) {
	holds := func(took uint32) bool {
		var s spread
		d := int64(took)*100 + 1<<classShift
		s.add(d)
		got, n := s.median()
		return n == 1 && math.Abs(float64(got)/float64(d)-1) < 0.126
	}
	if err := quick.Check(holds, nil); err != nil {
		t.Error(err)
	}
	for d := int64(-1); d > 0 || d == -1; d = d*2 + 1<<20 {
		if i := classOf(d); i < 0 || i >= classes {
			t.Errorf("class of %d: got %d", d, i)
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	for policy := range Policy(len(policies)) {
		b.Run(policy.String(), func(b *testing.B) {
			p := inertPool(everything(policy), 100, 100, 100)
			choice := &Choice{HasKey: true}
			b.ReportAllocs()
			for b.Loop() {
				choice.Key = mix(choice.Key + 1)
				cycle(p, choice)
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		p := inertPool(everything(EWMA), 100, 100, 100)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			choice := &Choice{}
			for pb.Next() {
				cycle(p, choice)
			}
		})
	})
}
