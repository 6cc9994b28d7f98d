package crew

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// TestGoroutinesAreKept: who has done its work does the next, until Trim finds
// that nobody needed it.
func TestGoroutinesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done atomic.Int32
		hold := make(chan bool)
		k := Crew[bool]{Do: func(wait bool) {
			if wait {
				<-hold
			}
			done.Add(1)
		}}
		waiting := func(want int, when string) {
			t.Helper()
			synctest.Wait()
			k.mu.Lock()
			defer k.mu.Unlock()
			if got := len(k.idle); got != want {
				t.Errorf("%s: got %d that wait, want %d", when, got, want)
			}
		}
		for range 3 {
			k.Run(true)
		}
		waiting(0, "all are at work")
		close(hold)
		waiting(3, "all is done")
		k.Run(false)
		waiting(3, "one more job was done")
		if got := k.Trim(); got != 3 {
			t.Errorf("first Trim: got %d, want 3, for there was a need before it", got)
		}
		k.Run(false)
		waiting(3, "and one more")
		if got := k.Trim(); got != 1 {
			t.Errorf("second Trim: got %d, want the one that worked since", got)
		}
		k.Clear()
		waiting(0, "after Clear")
		k.Run(false)
		waiting(1, "after Clear and a job")
		k.Dismiss()
		if got := done.Load(); got != 6 {
			t.Errorf("jobs done: got %d, want 6", got)
		}
	})
}

// TestDismissWaits: for who is at work.
func TestDismissWaits(t *testing.T) {
	var done atomic.Bool
	began, hold := make(chan bool), make(chan bool)
	k := Crew[int]{Do: func(int) {
		close(began)
		<-hold
		done.Store(true)
	}}
	k.Run(1)
	<-began
	go close(hold)
	k.Dismiss()
	if !done.Load() {
		t.Error("Dismiss returned before the work was done")
	}
}

func TestKeptGoroutinesAllocateNothing(t *testing.T) {
	did := make(chan bool, 1)
	k := Crew[int]{Do: func(int) { did <- true }}
	if got := testing.AllocsPerRun(1000, func() { k.Run(1); <-did }); got > 0.1 {
		t.Errorf("got %v allocations for each job, want 0", got)
	}
	k.Dismiss()
}
