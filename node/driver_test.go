package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/part"
)

// stub is a part of which the test says what it does.
type stub struct {
	apply func(context.Context, part.State) error

	mu      sync.Mutex
	applied []int64
	problem error
}

func (s *stub) Apply(ctx context.Context, st part.State) error {
	if s.apply != nil {
		if err := s.apply(ctx, st); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = append(s.applied, st.Revision)
	return nil
}

func (s *stub) Run(context.Context) error { return nil }

func (s *stub) Check(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem
}

func (s *stub) sick(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem = err
}

func (s *stub) revisions() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.applied)
}

// drive runs a driver of p in a bubble of synctest; time stands still unless all wait.
func drive(t *testing.T, p *stub, test func(d *driver, changed func() int)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		changes := 0
		d := newDriver("web", p, slog.New(slog.NewTextHandler(io.Discard, nil)), func() {
			mu.Lock()
			defer mu.Unlock()
			changes++
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { d.run(ctx) })
		test(d, func() int {
			mu.Lock()
			defer mu.Unlock()
			return changes
		})
		cancel()
		wg.Wait()
	})
}

func TestDriverAppliesOnlyChanges(t *testing.T) {
	p := &stub{}
	drive(t, p, func(d *driver, _ func() int) {
		for range 3 {
			d.offer(part.State{Revision: 1})
			synctest.Wait()
		}
		if got := d.revision(); got != 1 {
			t.Errorf("revision = %d, want 1", got)
		}
		d.offer(part.State{Revision: 1, AddressHolder: "s1"})
		synctest.Wait()
	})
	if diff := cmp.Diff([]int64{1, 1}, p.revisions()); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
}

func TestDriverDropsWhatIsOutdated(t *testing.T) {
	var gate chan struct{}
	p := &stub{apply: func(_ context.Context, s part.State) error {
		if s.Revision == 1 {
			<-gate
		}
		return nil
	}}
	synctest.Test(t, func(t *testing.T) {
		gate = make(chan struct{})
		d := newDriver("web", p, slog.New(slog.NewTextHandler(io.Discard, nil)), func() {})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { d.run(ctx) })
		d.offer(part.State{Revision: 1})
		synctest.Wait()
		for r := range int64(5) {
			d.offer(part.State{Revision: 2 + r})
		}
		close(gate)
		synctest.Wait()
		cancel()
		wg.Wait()
	})
	if diff := cmp.Diff([]int64{1, 6}, p.revisions()); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
}

func TestDriverTriesAgain(t *testing.T) {
	failures := 3
	p := &stub{apply: func(context.Context, part.State) error {
		if failures--; failures >= 0 {
			return errors.New("port in use")
		}
		return nil
	}}
	drive(t, p, func(d *driver, _ func() int) {
		d.offer(part.State{Revision: 4})
		synctest.Wait()
		problem, _ := d.health()
		if problem != "revision 4 is not in force: port in use" || d.revision() != 0 {
			t.Errorf("health, revision = %q, %d, want the failure and 0", problem, d.revision())
		}
		time.Sleep(time.Minute) // of the bubble's clock
		synctest.Wait()
		if problem, _ := d.health(); problem != "" || d.revision() != 4 {
			t.Errorf("health, revision = %q, %d, want none and 4", problem, d.revision())
		}
	})
}

// A state that mends what the last one broke does not wait for the back-off.
func TestDriverTakesNewerAtOnce(t *testing.T) {
	p := &stub{apply: func(_ context.Context, s part.State) error {
		if s.Revision == 1 {
			return errors.New("broken")
		}
		return nil
	}}
	drive(t, p, func(d *driver, _ func() int) {
		d.offer(part.State{Revision: 1})
		time.Sleep(time.Minute) // the back-off is at its longest
		synctest.Wait()
		began := time.Now()
		d.offer(part.State{Revision: 2})
		synctest.Wait()
		if got := d.revision(); got != 2 || time.Since(began) > 0 {
			t.Errorf("revision = %d after %s, want 2 at once", got, time.Since(began))
		}
		time.Sleep(time.Minute)
	})
	if diff := cmp.Diff([]int64{2}, p.revisions()); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
}

func TestDriverLimitsApply(t *testing.T) {
	p := &stub{apply: func(ctx context.Context, s part.State) error {
		if s.Revision == 1 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}
	drive(t, p, func(d *driver, _ func() int) {
		d.offer(part.State{Revision: 1})
		time.Sleep(applyLimit + time.Second)
		synctest.Wait()
		if problem, _ := d.health(); !strings.Contains(problem, "deadline exceeded") {
			t.Errorf("health = %q, want that it took too long", problem)
		}
	})
}

func TestDriverHealth(t *testing.T) {
	p := &stub{}
	drive(t, p, func(d *driver, changed func() int) {
		if problem, _ := d.health(); problem != "starting" {
			t.Errorf("health = %q, want starting", problem)
		}
		time.Sleep(checkEvery)
		synctest.Wait()
		problem, well := d.health()
		if problem != "" {
			t.Errorf("health = %q, want none", problem)
		}
		before := changed()
		time.Sleep(10 * checkEvery)
		synctest.Wait()
		if _, since := d.health(); !since.Equal(well) || changed() != before {
			t.Errorf("since %v, %d changes, want since %v and %d", since, changed(), well, before)
		}
		p.sick(errors.New("no upstream"))
		d.again() // does not wait for the next second
		synctest.Wait()
		problem, since := d.health()
		if problem != "no upstream" || !since.After(well) || changed() != before+1 {
			t.Errorf("health = %q since %v, %d changes, want no upstream, later, %d", problem, since, changed(), before+1)
		}
	})
}

func TestDriverTellsWhatWasApplied(t *testing.T) {
	var told []int64
	p := &stub{apply: func(_ context.Context, s part.State) error {
		if s.Revision == 1 {
			return errors.New("no")
		}
		return nil
	}}
	synctest.Test(t, func(t *testing.T) {
		d := newDriver("web", p, slog.New(slog.NewTextHandler(io.Discard, nil)), func() {})
		d.applied = func(s part.State) { told = append(told, s.Revision) }
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { d.run(ctx) })
		for r := range int64(3) {
			d.offer(part.State{Revision: r + 1})
			synctest.Wait()
		}
		cancel()
		wg.Wait()
	})
	if diff := cmp.Diff([]int64{2, 3}, told); diff != "" {
		t.Errorf("told of (-want +got):\n%s", diff)
	}
}
