// Package crew keeps goroutines that have done their work for the next: their
// stacks have grown to what it needs. Who is kept is decided by need alone:
// Trim lets those go for whom there was none since it was called last.
package crew

import "sync"

// Crew is goroutines that do jobs. Do is set before the first Run.
type Crew[T any] struct {
	Do func(T)

	mu   sync.Mutex
	idle []chan T // the most recently used last
	low  int      // the fewest that were idle since Trim
	over bool
	wg   sync.WaitGroup
}

// Run does job in a goroutine, and does not wait for it.
func (k *Crew[T]) Run(job T) {
	k.mu.Lock()
	if n := len(k.idle); n > 0 {
		ch := k.idle[n-1]
		k.idle = k.idle[:n-1]
		k.low = min(k.low, n-1)
		k.mu.Unlock()
		ch <- job
		return
	}
	k.mu.Unlock()
	k.wg.Go(func() { k.work(job) })
}

func (k *Crew[T]) work(job T) {
	ch := make(chan T, 1)
	for ok := true; ok; job, ok = <-ch {
		k.Do(job)
		if !k.stay(ch) {
			return
		}
	}
}

// stay makes the goroutine of ch ready for another job; false: none will come.
func (k *Crew[T]) stay(ch chan T) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.over {
		k.idle = append(k.idle, ch)
	}
	return !k.over
}

// Trim lets those go who had nothing to do since it was called last, and says how many wait still.
func (k *Crew[T]) Trim() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.free(k.low)
	k.low = len(k.idle)
	return k.low
}

// Clear lets all go who have nothing to do.
func (k *Crew[T]) Clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.free(len(k.idle))
	k.low = 0
}

// free lets n go that were not used for longest. It is called with k.mu held.
func (k *Crew[T]) free(n int) {
	for _, ch := range k.idle[:n] {
		close(ch)
	}
	left := copy(k.idle, k.idle[n:])
	clear(k.idle[left:])
	k.idle = k.idle[:left]
}

// Dismiss waits until all have gone. No job may come after it.
func (k *Crew[T]) Dismiss() {
	k.mu.Lock()
	k.over = true
	k.free(len(k.idle))
	k.mu.Unlock()
	k.wg.Wait()
}
