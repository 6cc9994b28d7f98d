package upstream

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// Pass is a request's right to be with the pool's targets.
type Pass struct{ entered, waited bool }

// Waited says whether the request was in the queue.
func (p Pass) Waited() bool { return p.waited }

// gate admits requests and lets the others wait in a queue, the first to come
// first. When the queue is full the newest is refused: those that have waited
// already get their answer.
type gate struct {
	inside  atomic.Int64 // requests whose answer's head has not come
	begun   atomic.Int64 // those of them that are with a target
	awaited atomic.Int64 // those of them that are written
	most    atomic.Int64 // busy since the adaptive limit looked
	length  atomic.Int64 // of the queue
	shed    atomic.Uint64

	mu    sync.Mutex
	queue []*queued
}

// queued is one request in the queue.
type queued struct {
	got   chan error // nil: admitted
	limit int64      // of waiting
}

// Enter admits a request, waits in the queue until it can be, or refuses it
// with ErrShed, ErrQueueFull, ErrQueueTime or ctx's cause. ctx is asked for only
// when the request must wait.
func (p *Pool) Enter(ctx func() context.Context) (Pass, error) {
	p.requests.Add(1)
	s := p.settings.Load()
	if p.gate.length.Load() == 0 && p.tryEnter(s) {
		return Pass{entered: true}, nil
	}
	err := p.enqueue(s, ctx)
	if err == nil {
		return Pass{entered: true, waited: true}, nil
	}
	p.gate.shed.Add(1)
	return Pass{}, err
}

// Leave gives the pass back: once the answer's head has been read, for what
// takes its time then is not the target's, or once the request has failed.
func (p *Pool) Leave(pass Pass, o Outcome) {
	if !pass.entered {
		return
	}
	p.outcomes[o].Add(1)
	p.gate.inside.Add(-1)
	p.admit()
}

// tryEnter admits one request if there is room.
func (p *Pool) tryEnter(s *Settings) bool {
	if s.InFlight > 0 && p.full(s) {
		return false
	}
	p.gate.inside.Add(1)
	n := p.gate.busy()
	if s.Adaptive && n > p.adaptive.limit.Load() {
		p.gate.inside.Add(-1)
		return false
	}
	if n > p.gate.most.Load() {
		p.gate.most.Store(n)
	}
	return true
}

// busy is what the adaptive limit bounds: the requests inside, but for those
// whose body is still coming. A slow client is no sign of congestion, and must
// not take the place of others.
func (g *gate) busy() int64 { return g.inside.Load() - g.begun.Load() + g.awaited.Load() }

// full says whether the targets have as many requests as they may, with those
// that are admitted but not with a target yet. Where none is in service at all
// that is not for the queue to mend.
func (p *Pool) full(s *Settings) bool {
	var room int64
	some := false
	for _, t := range s.Targets {
		if State(t.state.Load()) != Down && !t.drained.Load() {
			room += max(int64(s.InFlight)-t.inFlight.Load(), 0)
			some = true
		}
	}
	return some && room <= max(p.gate.inside.Load()-p.gate.begun.Load(), 0)
}

// enqueue waits for admission.
func (p *Pool) enqueue(s *Settings, ctx func() context.Context) error {
	q := &queued{got: make(chan error, 1), limit: Now() + int64(s.Patience)}
	if err := p.gate.line(p.queueLimit(s), q); err != nil || s.Patience <= 0 {
		return err
	}
	p.sweep()
	p.admit() // whoever left in the meantime saw an empty queue
	done := ctx()
	select {
	case err := <-q.got:
		return err
	case <-done.Done():
	}
	if p.gate.unline(q) {
		return context.Cause(done)
	}
	return <-q.got // just now
}

// line puts q at the end of the queue, unless that is full.
func (g *gate) line(l lineLimit, q *queued) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.queue) >= l.length {
		return l.err
	}
	g.queue = append(g.queue, q)
	g.length.Store(int64(len(g.queue)))
	return nil
}

// unline takes q out of the queue; false: it is not there any more.
func (g *gate) unline(q *queued) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.queue, q)
	if i < 0 {
		return false
	}
	g.queue = slices.Delete(g.queue, i, i+1)
	g.length.Store(int64(len(g.queue)))
	return true
}

// lineLimit is how long the queue may be, and what the next is refused with.
type lineLimit struct {
	length int
	err    error
}

// queueLimit is the queue's length. When latency is what bounds the requests,
// no more may wait than are under way: more than doubling the latency is no help.
func (p *Pool) queueLimit(s *Settings) lineLimit {
	l := lineLimit{s.Queue, ErrQueueFull}
	if s.Patience <= 0 {
		l.length = 0
	}
	if limit := p.adaptive.limit.Load(); s.Adaptive && p.gate.busy() >= limit {
		l.err = ErrShed
		l.length = min(l.length, int(limit))
	}
	return l
}

// admit lets in whom there is room for, the first in the queue first.
func (p *Pool) admit() {
	g := &p.gate
	if g.length.Load() == 0 {
		return
	}
	s := p.settings.Load()
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.queue) > 0 && p.tryEnter(s) {
		g.next(nil)
	}
}

// expire refuses those who have waited for too long.
func (g *gate) expire(now int64) {
	if g.length.Load() == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.queue) > 0 && g.queue[0].limit <= now {
		g.next(ErrQueueTime)
	}
}

// next takes the first out of the queue. g.mu is held.
func (g *gate) next(err error) {
	g.queue[0].got <- err
	g.queue[0] = nil
	g.queue = g.queue[1:]
	g.length.Store(int64(len(g.queue)))
}

// leave takes a request off the target.
func (t *Target) leave() {
	t.inFlight.Add(-1)
	if p := t.pool.Load(); p != nil {
		p.admit()
	}
}
