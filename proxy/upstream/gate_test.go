package upstream

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// enter asks for admission in a goroutine of its own and tells the outcome.
func enter(ctx context.Context, p *Pool) <-chan error {
	got := make(chan error, 1)
	go func() {
		_, err := p.Enter(func() context.Context { return ctx })
		got <- err
	}()
	return got
}

// outcomeOf is what has come by now.
func outcomeOf(got <-chan error) string {
	synctest.Wait()
	select {
	case err := <-got:
		if err == nil {
			return "admitted"
		}
		return err.Error()
	default:
		return "waits"
	}
}

func TestQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := inertPool(Settings{InFlight: 1, Queue: 2, Patience: time.Second}, 1)
		g := p.Targets()[0]
		pass, err := p.Enter(t.Context)
		if err != nil {
			t.Fatal(err)
		}
		c := dialed(t, g)
		first := enter(t.Context(), p)
		synctest.Wait()
		second := enter(t.Context(), p)
		synctest.Wait()
		third := enter(t.Context(), p)
		got := []string{outcomeOf(first), outcomeOf(second), outcomeOf(third)}
		if diff := cmp.Diff([]string{"waits", "waits", ErrQueueFull.Error()}, got); diff != "" {
			t.Errorf("while the target is busy: %s", diff)
		}
		if s := p.Status(); s.Queued != 2 || s.Shed != 1 {
			t.Errorf("status: got %+v, want 2 queued and 1 shed", s)
		}
		_ = c.Came(Now())
		p.Leave(pass, OK)
		c.Done(OK, true)
		got = []string{outcomeOf(first), outcomeOf(second)}
		if diff := cmp.Diff([]string{"admitted", "waits"}, got); diff != "" {
			t.Errorf("once there is room for one: %s", diff)
		}
		time.Sleep(1100 * time.Millisecond)
		if diff := cmp.Diff(ErrQueueTime.Error(), outcomeOf(second)); diff != "" {
			t.Errorf("after its patience: %s", diff)
		}
		p.Leave(Pass{entered: true}, OK) // of the first
	})
}

func TestQueueIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := inertPool(Settings{InFlight: 1, Queue: 2, Patience: time.Minute}, 1)
		c := dialed(t, p.Targets()[0])
		cause := errors.New("client went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		first, second := enter(ctx, p), enter(t.Context(), p)
		synctest.Wait()
		cancel(cause)
		if diff := cmp.Diff(cause.Error(), outcomeOf(first)); diff != "" {
			t.Error(diff)
		}
		c.Done(OK, true)
		if diff := cmp.Diff("admitted", outcomeOf(second)); diff != "" {
			t.Error(diff)
		}
		p.Leave(Pass{entered: true}, OK)
	})
}

func TestNoQueueWithoutPatience(t *testing.T) {
	p := inertPool(Settings{InFlight: 1, Queue: 2}, 1)
	c := dialed(t, p.Targets()[0])
	if _, err := p.Enter(t.Context); err != ErrQueueFull {
		t.Errorf("got %v, want %v", err, ErrQueueFull)
	}
	c.Done(OK, true)
}

// TestSlowUploadsAreNotShedFor has more requests than the limit allows, whose
// bodies do not come.
func TestSlowUploadsAreNotShedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := adaptivePool(0, limitLeast)
		var all []*Conn
		for range 500 {
			if _, err := p.Enter(t.Context); err != nil {
				t.Fatalf("after %d: %v", len(all), err)
			}
			all = append(all, dialed(t, p.Choose(&Choice{})))
		}
		for i, c := range all {
			if c.Await(Now()); i >= int(limitLeast) {
				break
			}
		}
		if _, err := p.Enter(t.Context); err != ErrShed {
			t.Errorf("when so many wait for an answer: got %v, want %v", err, ErrShed)
		}
		for _, c := range all {
			c.Done(Cancelled, false)
			p.Leave(Pass{entered: true}, Cancelled)
		}
	})
}

func TestNoQueueForAPoolThatIsDown(t *testing.T) {
	p := inertPool(Settings{InFlight: 1, Queue: 2, Patience: time.Second}, 1)
	p.Targets()[0].SetState(Down, "")
	pass, err := p.Enter(t.Context)
	if err != nil {
		t.Errorf("got %v, want that Wait decides", err)
	}
	p.Leave(pass, Cancelled)
}

// backend is workers that each serve one request at a time.
type backend struct {
	workers chan struct{}
	takes   func() time.Duration
}

func newBackend(workers int, takes func() time.Duration) *backend {
	return &backend{make(chan struct{}, workers), takes}
}

// load is what came of requests that arrive at a steady rate.
type load struct {
	mu           sync.Mutex
	served, shed int
	longest      time.Duration
}

// offer has requests arrive at random, rate a second on average, for that long.
func offer(t *testing.T, p *Pool, b *backend, rate float64, long time.Duration) *load {
	t.Helper()
	l := &load{}
	var wg sync.WaitGroup
	random := rand.New(rand.NewPCG(1, uint64(rate)))
	for end := time.Now().Add(long); time.Now().Before(end); {
		time.Sleep(time.Duration(random.ExpFloat64() / rate * 1e9))
		wg.Go(func() { l.one(p, b) })
	}
	wg.Wait()
	return l
}

func (l *load) one(p *Pool, b *backend) {
	begin := time.Now()
	pass, err := p.Enter(context.Background)
	if err != nil {
		l.mu.Lock()
		l.shed++
		l.mu.Unlock()
		return
	}
	g := p.Choose(&Choice{})
	c := g.Take(Now(), false)
	if c == nil {
		c, _ = g.Dial(context.Background())
	}
	c.Begin()
	c.Await(Now())
	b.workers <- struct{}{}
	time.Sleep(b.takes())
	<-b.workers
	_ = c.Came(Now())
	p.Leave(pass, OK)
	c.Done(OK, true)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.served++
	l.longest = max(l.longest, time.Since(begin))
}

// noisy is a time with a long tail: one in fifty takes a hundred times as long.
func noisy(typical time.Duration) func() time.Duration {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(3, 4))
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		took := float64(typical) * math.Exp(random.NormFloat64()*0.8)
		if random.IntN(50) == 0 {
			took *= 100
		}
		return time.Duration(took)
	}
}

func steady(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

func adaptivePool(queue int, limit float64) *Pool {
	p := inertPool(Settings{Adaptive: true, Queue: queue, Patience: 200 * time.Millisecond}, 1, 1)
	p.adaptive.exact = limit
	p.adaptive.limit.Store(int64(limit))
	return p
}

// TestNoiseIsNotShed has many requests under way at targets whose answers take
// very different times, but which are not congested.
func TestNoiseIsNotShed(t *testing.T) {
	for _, first := range []float64{limitFirst, 100, limitLeast} {
		bubble(t, func(t *testing.T) {
			p := adaptivePool(1000, first)
			b := newBackend(10000, noisy(30*time.Millisecond))
			offer(t, p, b, 1000, 10*time.Second) // find the limit
			l := offer(t, p, b, 1000, 20*time.Second)
			t.Logf("from %v: served %d, shed %d, limit %d", first, l.served, l.shed, p.Status().Limit)
			if l.shed > l.served/1000 {
				t.Errorf("from a limit of %v: shed %d of %d", first, l.shed, l.served)
			}
		})
	}
}

// TestOverloadIsShed offers twice what can be served.
func TestOverloadIsShed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := adaptivePool(100, limitFirst)
		b := newBackend(40, steady(20*time.Millisecond)) // 2000 a second
		offer(t, p, b, 1000, 2*time.Second)
		offer(t, p, b, 4000, 10*time.Second)
		l := offer(t, p, b, 4000, 20*time.Second)
		t.Logf("served %d, shed %d, longest %s, limit %d", l.served, l.shed, l.longest, p.Status().Limit)
		if rate := float64(l.served) / 20; rate < 1800 {
			t.Errorf("served under overload: got %.0f a second, want nearly 2000", rate)
		}
		if l.longest > 500*time.Millisecond {
			t.Errorf("longest wait under overload: got %s", l.longest)
		}
		if limit := p.Status().Limit; limit > 3*limitLeast {
			t.Errorf("limit under overload of 40 workers: got %d", limit)
		}
		after := offer(t, p, b, 1500, 10*time.Second)
		if after.shed > after.served/100 {
			t.Errorf("shed after the overload: %d of %d", after.shed, after.served)
		}
	})
}

// TestSlowByThemselves has targets become five times slower for a reason that
// is not load: to shed would not help.
func TestSlowByThemselves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := adaptivePool(1000, limitLeast)
		takes := 20 * time.Millisecond
		b := newBackend(10000, func() time.Duration { return takes })
		offer(t, p, b, 1000, 5*time.Second)
		takes = 100 * time.Millisecond
		first := offer(t, p, b, 1000, 20*time.Second)
		l := offer(t, p, b, 1000, 10*time.Second)
		t.Logf("shed %d, then %d of %d, limit %d", first.shed, l.shed, l.served, p.Status().Limit)
		if l.shed > l.served/100 {
			t.Errorf("shed: %d of %d", l.shed, l.served)
		}
	})
}
