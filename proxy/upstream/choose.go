package upstream

import (
	"math/rand/v2"
	"slices"
)

// Choice is what a request has to say of the choice of its target.
type Choice struct {
	Now    int64  // Now(); zero: Choose looks itself
	Key    uint64 // for the policy Hash: KeyOf what the request is told apart by
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

// Choose returns a target, or nil if none can be chosen. Only those of the best
// rank count: Up before Unwell and Untested, and ejected ones last.
func (p *Pool) Choose(c *Choice) *Target {
	if c.Now == 0 {
		c.Now = Now()
	}
	f := field{pool: p, settings: p.settings.Load(), choice: c, now: c.Now}
	f.survey()
	switch {
	case f.sticky != nil:
		return f.sticky
	case f.count <= 1:
		return f.only
	}
	if t := f.pick(); t != nil {
		return t
	}
	return f.only // the others have just gone
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
	sticky   *Target // the visitor's own, if it is one of them
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

func (f *field) pick() *Target {
	switch f.settings.Policy {
	case RoundRobin:
		return f.turn()
	case Least:
		return f.least()
	case Hash:
		if f.choice.HasKey {
			return f.hash()
		}
	}
	return f.faster()
}

// candidate says whether t is of the best rank. A target in slow start is one
// only sometimes, as often as its weight has grown.
func (f *field) candidate(t *Target) bool {
	if f.rankOf(t) != f.rank {
		return false
	}
	part := t.slowStart(f.now, f.settings)
	return part >= 1 || rand.Float64() < part
}
