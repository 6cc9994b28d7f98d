package upstream

import (
	"math/rand/v2"
	"slices"
)

// Choice is what a request has to say of the choice of its target.
type Choice struct {
	Now    int64  // Now(); zero: Choose looks itself
	Key    uint64 // for the policy Hash, well mixed
	HasKey bool
	Sticky string     // name of the target that the visitor had before
	Tried  [8]*Target // not to be chosen again
	NTried int
}

// Try adds t to what was tried.
func (c *Choice) Try(t *Target) {
	if c.NTried < len(c.Tried) {
		c.Tried[c.NTried] = t
		c.NTried++
	}
}

// Choose returns a target, or nil if none can be chosen.
func (p *Pool) Choose(c *Choice) *Target {
	if c.Now == 0 {
		c.Now = Now()
	}
	s := p.settings.Load()
	f := field{pool: p, settings: s, choice: c, now: c.Now}
	f.survey()
	if f.rank == rankNone {
		return nil
	}
	if f.sticky != nil {
		return f.sticky
	}
	if f.count == 1 {
		return f.only
	}
	return f.least()
}

// field is one choice: the targets of the best rank there is.
type field struct {
	pool     *Pool
	settings *Settings
	choice   *Choice
	now      int64
	rank     int
	count    int
	only     *Target // one of them
	sticky   *Target // the visitor's own, if it is of the rank
}

// survey finds the best rank.
func (f *field) survey() {
	for _, t := range f.settings.Targets {
		rank := f.rankOf(t)
		if rank == rankNone || rank < f.rank {
			continue
		}
		if rank > f.rank {
			f.rank, f.count, f.sticky = rank, 0, nil
		}
		f.count++
		f.only = t
		if f.choice.Sticky != "" && t.config.Name == f.choice.Sticky {
			f.sticky = t
		}
	}
}

func (f *field) rankOf(t *Target) int {
	if n := f.choice.NTried; n > 0 && slices.Contains(f.choice.Tried[:n], t) {
		return rankNone
	}
	return t.usable(f.now, f.settings)
}

// least is the fewest requests in flight, at random among equals.
func (f *field) least() *Target {
	var best *Target
	var load int64
	ties := 0
	for _, t := range f.settings.Targets {
		if f.rankOf(t) != f.rank {
			continue
		}
		n := t.inFlight.Load()
		switch {
		case best == nil || n < load:
			best, load, ties = t, n, 1
		case n == load:
			ties++
			if rand.IntN(ties) == 0 {
				best = t
			}
		}
	}
	return best
}
