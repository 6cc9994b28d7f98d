package upstream

import "time"

// Ejection says when a target that fails visitors is taken out of the choice for a while, whatever its checks say.
type Ejection struct {
	Errors int           // in a row; 0: none eject
	Slower int           // times the median of the others; 0: any
	For    time.Duration // the first time; longer each time in a row
	Most   int           // per cent of the targets that may be out at a time
}

type passive struct{}

// account notes how an exchange went.
func (t *Target) account(c *Conn, o Outcome) {
	if o == OK || o == Cancelled {
		return
	}
	t.failures.Add(1)
	if p := t.pool.Load(); p != nil && o != Bad {
		p.suspect(t)
	}
}
