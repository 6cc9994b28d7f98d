package upstream

import "math/rand/v2"

// least is the candidate with the fewest requests in flight for its weight; at
// random among equals, by weight.
func (f *field) least() *Target {
	var best *Target
	var load, weight, ties int64
	for _, t := range f.settings.Targets {
		if !f.candidate(t) {
			continue
		}
		n, w := t.inFlight.Load(), t.weight.Load()
		switch {
		case best == nil || n*weight < load*w:
			best, load, weight, ties = t, n, w, w
		case n*weight == load*w:
			ties += w
			if rand.Int64N(ties) < w {
				best, load, weight = t, n, w
			}
		}
	}
	return best
}
