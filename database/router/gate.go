package router

import (
	"context"
	"slices"
	"sync"
)

// gate lets a limited number in at a time; a limited number of others wait
// before it, the first come first served.
type gate struct {
	mu      sync.Mutex
	limit   int
	most    int // waiting
	inside  int
	waiting []chan struct{}
}

// enter returns true once there is a place; false if too many wait or ctx ends.
func (g *gate) enter(ctx context.Context) bool {
	turn, ok := g.join()
	if turn == nil {
		return ok
	}
	select {
	case <-turn:
		return true
	case <-ctx.Done():
		return !g.quit(turn)
	}
}

// join takes a place, or one in the queue.
func (g *gate) join() (turn chan struct{}, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.inside < g.limit:
		g.inside++
		return nil, true
	case len(g.waiting) >= g.most:
		return nil, false
	}
	turn = make(chan struct{})
	g.waiting = append(g.waiting, turn)
	return turn, true
}

// quit leaves the queue; false if it was this one's turn already.
func (g *gate) quit(turn chan struct{}) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.waiting, turn)
	if i < 0 {
		return false
	}
	g.waiting = slices.Delete(g.waiting, i, i+1)
	return true
}

// leave gives a place back.
func (g *gate) leave() {
	g.mu.Lock()
	g.inside--
	g.admit()
	g.mu.Unlock()
}

// resize sets how many there may be inside.
func (g *gate) resize(limit int) {
	g.mu.Lock()
	g.limit = limit
	g.admit()
	g.mu.Unlock()
}

func (g *gate) admit() {
	for g.inside < g.limit && len(g.waiting) > 0 {
		close(g.waiting[0])
		g.waiting = slices.Delete(g.waiting, 0, 1)
		g.inside++
	}
}

// queue is how many wait.
func (g *gate) queue() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}

// capacity is how many there may be inside and in the queue.
func (g *gate) capacity() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limit + g.most
}
