package upstream

import (
	"context"
	"testing"
	"time"
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
