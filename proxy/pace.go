package proxy

import "time"

// paceWindow is over how much waiting a client's rate is averaged.
const paceWindow = 5 * time.Second

// pace measures how fast a client moves while it is waited for.
type pace struct {
	waited int64 // nanoseconds
	bytes  int64
}

// limit is how long n bytes may take; 0: as long as they will.
func (p *pace) limit(t Times, n int) time.Duration {
	if t.Still <= 0 {
		return 0
	}
	if t.Rate <= 0 {
		return t.Still
	}
	return t.Still + time.Duration(n)*time.Second/time.Duration(t.Rate)
}

// moved notes that n bytes took so long. It is false when that is too slow on average.
func (p *pace) moved(waited int64, n, rate int) bool {
	p.waited += waited
	p.bytes += int64(n)
	if p.waited < int64(paceWindow) {
		return true
	}
	ok := rate <= 0 || float64(p.bytes) >= float64(rate)*float64(p.waited)/float64(time.Second)
	*p = pace{}
	return ok
}
