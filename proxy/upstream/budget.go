package upstream

type budget struct{}

// TakeRetry takes one retry out of the budget; false: it is used up.
func (p *Pool) TakeRetry() bool {
	p.retries.Add(1)
	return true
}
