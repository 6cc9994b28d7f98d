package proxy

import "sync"

// crew are the goroutines that serve connections. One that has nothing to do is
// kept for a while, since its stack has grown to what serving needs.
type crew struct {
	mu   sync.Mutex
	idle []chan *conn // the most recently used last
	low  int          // the fewest that were idle since trim
	over bool
	wg   sync.WaitGroup
}

// run serves c in a goroutine.
func (k *crew) run(c *conn) {
	k.mu.Lock()
	if n := len(k.idle); n > 0 {
		ch := k.idle[n-1]
		k.idle = k.idle[:n-1]
		k.low = min(k.low, n-1)
		k.mu.Unlock()
		ch <- c
		return
	}
	k.mu.Unlock()
	k.wg.Go(func() { k.work(c) })
}

func (k *crew) work(c *conn) {
	ch := make(chan *conn, 1)
	for c != nil {
		c.serve()
		if !k.stay(ch) {
			return
		}
		c = <-ch
	}
}

// stay makes the goroutine of ch ready for another connection; false: none will come.
func (k *crew) stay(ch chan *conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.over {
		k.idle = append(k.idle, ch)
	}
	return !k.over
}

// trim lets those go who had nothing to do since it was called last, and says how many are left.
func (k *crew) trim() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, ch := range k.idle[:k.low] {
		ch <- nil
	}
	k.idle = append(k.idle[:0], k.idle[k.low:]...)
	k.low = len(k.idle)
	return k.low
}

// dismiss waits until all have gone. No connection comes after it.
func (k *crew) dismiss() {
	k.mu.Lock()
	k.over = true
	for _, ch := range k.idle {
		ch <- nil
	}
	k.idle = nil
	k.mu.Unlock()
	k.wg.Wait()
}
