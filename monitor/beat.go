package monitor

import "sync"

// beat wakes all who wait, once for each strike.
type beat struct {
	mu sync.Mutex
	ch chan struct{}
}

// next returns a channel that the next strike closes.
func (b *beat) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *beat) strike() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
