package upstream

import "sync"

const (
	retryFloor = 10    // retries each second, however few requests there are
	retryMost  = 100.0 // that can be saved up
)

// budget is a token bucket of retries. Requests fill it by their number, which
// is counted anyway: only who takes pays for the arithmetic.
type budget struct {
	mu       sync.Mutex
	tokens   float64
	at       int64
	requests uint64
	begun    bool
}

// TakeRetry takes one retry out of the budget; false: it is used up, and the
// request must not be sent again.
func (p *Pool) TakeRetry() bool {
	share := p.settings.Load().Budget
	if share > 0 && !p.budget.take(Now(), p.requests.Load(), share) {
		return false
	}
	p.retries.Add(1)
	return true
}

func (b *budget) take(now int64, requests uint64, share float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.begun {
		b.begun, b.tokens, b.at = true, retryFloor, now
	}
	gained := share*float64(requests-b.requests) + retryFloor*float64(now-b.at)/1e9
	b.tokens = min(b.tokens+gained, retryMost)
	b.requests, b.at = requests, now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
