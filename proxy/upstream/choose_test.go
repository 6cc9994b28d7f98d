package upstream

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/quick"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shares counts who is chosen in n requests that end at once.
func shares(p *Pool, n int) map[string]float64 {
	got := map[string]float64{}
	for i := range n {
		got[p.Choose(&Choice{Now: Now(), Key: mix(uint64(i)), HasKey: true}).Name()] += 1 / float64(n)
	}
	return got
}

func TestSharesOfAnIdlePool(t *testing.T) {
	for policy := range Policy(len(policies)) {
		t.Run(policy.String(), func(t *testing.T) {
			got := shares(inertPool(Settings{Policy: policy}, 1, 1, 2), 20000)
			if policy == EWMA {
				// Two of three at random, then by weight: c is in two of three pairs and wins two thirds there.
				near(t, got, map[string]float64{"a": 5.0 / 18, "b": 5.0 / 18, "c": 8.0 / 18})
				return
			}
			near(t, got, map[string]float64{"a": 0.25, "b": 0.25, "c": 0.5})
		})
	}
}

func near(t *testing.T, got, want map[string]float64) {
	t.Helper()
	for name, w := range want {
		if math.Abs(got[name]-w) > 0.02 {
			t.Errorf("share of %s: got %.3f, want %.3f", name, got[name], w)
		}
	}
}

func TestRoundRobinIsSmooth(t *testing.T) {
	p := inertPool(Settings{Policy: RoundRobin}, 5, 1, 1)
	got := ""
	for range 14 {
		got += p.Choose(&Choice{}).Name()
	}
	if diff := cmp.Diff("aabacaaaabacaa", got); diff != "" {
		t.Error(diff)
	}
}

func TestLeastByWeight(t *testing.T) {
	p := inertPool(Settings{Policy: Least}, 1, 3)
	for range 40 {
		dialed(t, p.Choose(&Choice{}))
	}
	got := []int64{p.Targets()[0].InFlight(), p.Targets()[1].InFlight()}
	if diff := cmp.Diff([]int64{10, 30}, got); diff != "" {
		t.Error(diff)
	}
}

// TestDrainedIsToldWhileItLasts: who is back is not said to be drained by an operator.
func TestDrainedIsToldWhileItLasts(t *testing.T) {
	p := inertPool(Settings{}, 1)
	g := p.Targets()[0]
	condition := func() []string { s := g.Status(); return []string{s.State, s.Why} }
	g.SetState(Unwell, "answers 500")
	for range 2 {
		g.Drain(true)
		if diff := cmp.Diff([]string{"drained", "drained by an operator"}, condition()); diff != "" {
			t.Errorf("drained: -want +got\n%s", diff)
		}
		g.Drain(false)
		if diff := cmp.Diff([]string{"unwell", "answers 500"}, condition()); diff != "" {
			t.Errorf("back: -want +got\n%s", diff)
		}
	}
	g.Drain(true)
	g.SetState(Up, "")
	g.Drain(false)
	if diff := cmp.Diff([]string{"up", ""}, condition()); diff != "" {
		t.Errorf("back and well: -want +got\n%s", diff)
	}
}

func TestRanks(t *testing.T) {
	up, unwell, untested, down := inertTarget("up", 1), inertTarget("unwell", 1), inertTarget("untested", 1), inertTarget("down", 1)
	unwell.SetState(Unwell, "")
	untested.SetState(Untested, "")
	down.SetState(Down, "")
	drained, skipped, ejected := inertTarget("drained", 1), inertTarget("skipped", 1), inertTarget("ejected", 1)
	drained.Drain(true)
	skipped.Skip(time.Hour)
	ejected.ejected.Store(Now() + int64(time.Hour))
	full := inertTarget("full", 1)
	dialed(t, full)
	tests := []struct {
		targets []*Target
		tried   *Target
		want    map[string]bool
	}{
		{targets: []*Target{up, unwell, ejected, down}, want: map[string]bool{"up": true}},
		{targets: []*Target{unwell, untested, ejected, down}, want: map[string]bool{"unwell": true, "untested": true}},
		{targets: []*Target{ejected, down, drained, skipped}, want: map[string]bool{"ejected": true}},
		{targets: []*Target{down, drained, skipped, full}, want: map[string]bool{"": true}},
		{targets: []*Target{up, unwell}, tried: up, want: map[string]bool{"unwell": true}},
		{want: map[string]bool{"": true}},
	}
	for _, tt := range tests {
		for policy := range Policy(len(policies)) {
			p := NewPool(PoolConfig{})
			p.settings.Store(&Settings{Targets: tt.targets, Policy: policy, InFlight: 1})
			got := map[string]bool{}
			for i := range 100 {
				c := Choice{Key: mix(uint64(i)), HasKey: true}
				if tt.tried != nil {
					c.Try(tt.tried)
				}
				name := ""
				if g := p.Choose(&c); g != nil {
					name = g.Name()
				}
				got[name] = true
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s: %s", policy, diff)
			}
		}
	}
}

func TestSticky(t *testing.T) {
	p := inertPool(Settings{}, 1, 1, 1)
	b := p.Targets()[1]
	ask := func() string { return p.Choose(&Choice{Sticky: "b"}).Name() }
	for range 50 {
		if got := ask(); got != "b" {
			t.Fatalf("visitor of b: got %s", got)
		}
	}
	b.SetState(Unwell, "it says so")
	for range 50 {
		if got := ask(); got == "b" {
			t.Fatal("visitor of b, which is unwell: got b")
		}
	}
}

// owners is who gets each of n keys.
func owners(p *Pool, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = p.Choose(&Choice{Key: KeyOf(fmt.Sprint(i)), HasKey: true}).Name()
	}
	return all
}

func TestHashMovesFewKeys(t *testing.T) {
	p := inertPool(Settings{Policy: Hash}, 1, 1, 1, 1, 1)
	before := owners(p, 5000)
	if diff := cmp.Diff(before, owners(p, 5000)); diff != "" {
		t.Fatalf("the same keys again: %s", diff)
	}
	p.Targets()[2].SetState(Down, "gone")
	moved, gone := 0, 0
	for i, now := range owners(p, 5000) {
		if before[i] == "c" {
			gone++
		} else if now != before[i] {
			moved++
		}
	}
	if moved != 0 {
		t.Errorf("keys of targets that stayed: %d moved, want 0", moved)
	}
	if gone < 900 || gone > 1100 {
		t.Errorf("keys of one of five targets: got %d of 5000", gone)
	}
}

func TestHashIsBounded(t *testing.T) {
	p := inertPool(Settings{Policy: Hash}, 1, 1, 1, 1)
	for range 400 {
		dialed(t, p.Choose(&Choice{Key: 7, HasKey: true})) // all of one visitor
	}
	for _, g := range p.Targets() {
		if n := g.InFlight(); n > 126 {
			t.Errorf("%s has %d of 400 requests, want at most 1.25 times the mean", g.Name(), n)
		}
	}
}

// TestHashBoundHolds is the bound as a property, whatever the weights and loads.
func TestHashBoundHolds(t *testing.T) {
	holds := func(weights []uint8, keys []uint16) bool {
		if len(weights) == 0 {
			return true
		}
		w := make([]int, min(len(weights), 20))
		total := 0
		for i := range w {
			w[i] = int(weights[i]%10) + 1
			total += w[i]
		}
		p := inertPool(Settings{Policy: Hash}, w...)
		for i, k := range keys {
			g := p.Choose(&Choice{Key: mix(uint64(k % 3)), HasKey: true})
			if g == nil {
				return false
			}
			dialed(t, g)
			bound := max(math.Ceil(hashBound*float64(i+1)*float64(g.weight.Load())/float64(total)), hashSlack)
			if float64(g.InFlight()) > bound {
				return false
			}
		}
		return true
	}
	if err := quick.Check(holds, &quick.Config{MaxCount: 50}); err != nil {
		t.Error(err)
	}
}

// simulation is requests that arrive at random and take as long as their target does.
type simulation struct {
	pool   *Pool
	takes  map[string]time.Duration
	now    int64
	ends   endings
	served map[string]int
	bad    string // target that answers 502
	random *rand.Rand
}

type ending struct {
	at int64
	c  *Conn
}

type endings []ending

func (e endings) Len() int           { return len(e) }
func (e endings) Less(i, j int) bool { return e[i].at < e[j].at }
func (e endings) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *endings) Push(x any)        { *e = append(*e, x.(ending)) }
func (e *endings) Pop() any          { x := (*e)[len(*e)-1]; *e = (*e)[:len(*e)-1]; return x }

func simulate(p *Pool, takes map[string]time.Duration) *simulation {
	return &simulation{pool: p, takes: takes, now: Now(), served: map[string]int{}, random: rand.New(rand.NewPCG(1, 2))}
}

// run lets n requests arrive, gap apart on average.
func (s *simulation) run(t *testing.T, n int, gap time.Duration) {
	t.Helper()
	clear(s.served)
	for range n {
		s.now += int64(s.random.ExpFloat64() * float64(gap))
		for len(s.ends) > 0 && s.ends[0].at <= s.now {
			e := heap.Pop(&s.ends).(ending)
			_ = e.c.Came(e.at)
			o := OK
			if e.c.Target().Name() == s.bad {
				o = Bad
			}
			e.c.Done(o, true)
		}
		g := s.pool.Choose(&Choice{Now: s.now})
		c := g.Take(s.now, false)
		if c == nil {
			c = dialed(t, g)
		} else {
			c.Begin()
		}
		c.Await(s.now)
		noise := math.Exp(s.random.NormFloat64() * 0.5)
		heap.Push(&s.ends, ending{s.now + int64(float64(s.takes[g.Name()])*noise), c})
		s.served[g.Name()]++
	}
}

func TestEWMAAvoidsTheSlow(t *testing.T) {
	s := simulate(inertPool(Settings{}, 1, 1, 1), map[string]time.Duration{
		"a": 5 * time.Millisecond, "b": 5 * time.Millisecond, "c": 100 * time.Millisecond,
	})
	s.run(t, 1000, 2*time.Millisecond)
	s.run(t, 10000, 2*time.Millisecond)
	if s.served["c"] > 300 || s.served["c"] == 0 {
		t.Errorf("requests of 10000 to a target 20 times as slow: got %d, want few but some", s.served["c"])
	}
	if s.served["a"] < 4000 || s.served["b"] < 4000 {
		t.Errorf("requests to the others: got %d and %d, want about as many each", s.served["a"], s.served["b"])
	}
	s.takes["c"] = 5 * time.Millisecond
	s.run(t, 10000, 2*time.Millisecond) // 20 s
	s.run(t, 10000, 2*time.Millisecond)
	if s.served["c"] < 2000 {
		t.Errorf("requests of 10000 once it is as fast as the others: got %d", s.served["c"])
	}
}

func TestEWMAIsNotFondOfFastErrors(t *testing.T) {
	s := simulate(inertPool(Settings{}, 1, 1, 1), map[string]time.Duration{
		"a": 5 * time.Millisecond, "b": 5 * time.Millisecond, "c": 100 * time.Microsecond,
	})
	s.bad = "c"
	s.run(t, 1000, 2*time.Millisecond)
	s.run(t, 5000, 2*time.Millisecond)
	if n := s.served["c"]; n > 500 {
		t.Errorf("requests of 5000 to a target that fails fast: got %d, want few", n)
	}
}

func TestEWMAExploresTheUnknown(t *testing.T) {
	p := inertPool(Settings{}, 1, 1)
	s := simulate(p, map[string]time.Duration{"a": 5 * time.Millisecond, "b": 5 * time.Millisecond, "new": 2 * time.Second})
	s.run(t, 2000, time.Millisecond)
	set := *p.Settings()
	fresh := inertTarget("new", 1)
	set.Targets = append(p.Targets(), fresh)
	p.Set(set)
	s.run(t, 1000, time.Millisecond)
	if n := s.served["new"]; n == 0 || n > 30 {
		t.Errorf("requests in a second to a new target that has answered none yet: got %d, want some, not many", n)
	}
}

func TestEWMAUnderLoadByWeight(t *testing.T) {
	s := simulate(inertPool(Settings{}, 1, 3), map[string]time.Duration{"a": 50 * time.Millisecond, "b": 50 * time.Millisecond})
	s.run(t, 2000, time.Millisecond)
	s.run(t, 20000, time.Millisecond)
	got := float64(s.served["a"]) / 20000
	if got < 0.2 || got > 0.32 {
		t.Errorf("share of the target with weight 1 of 4: got %.2f", got)
	}
}

func TestSlowStart(t *testing.T) {
	const ramp = 10 * time.Second
	for policy := range Policy(len(policies)) {
		t.Run(policy.String(), func(t *testing.T) {
			p := inertPool(Settings{Policy: policy, SlowStart: ramp}, 1, 1)
			b := p.Targets()[1]
			b.SetState(Down, "")
			b.SetState(Up, "")
			from := b.ramp.Load()
			for _, tt := range []struct {
				after    time.Duration
				min, max float64
			}{{0, 0.02, 0.12}, {ramp / 2, 0.2, 0.42}, {ramp, 0.47, 0.53}} {
				n := 0
				for i := range 5000 {
					if p.Choose(&Choice{Now: from + int64(tt.after), Key: mix(uint64(i)), HasKey: true}) == b {
						n++
					}
				}
				if got := float64(n) / 5000; got < tt.min || got > tt.max {
					t.Errorf("share %s after it came back: got %.3f, want %.2f to %.2f", tt.after, got, tt.min, tt.max)
				}
			}
		})
	}
}
