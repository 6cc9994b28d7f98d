package upstream

// turn is smooth weighted round robin, as nginx has it: each gains its weight,
// the richest is chosen and pays for all.
func (f *field) turn() *Target {
	f.pool.turn.Lock()
	defer f.pool.turn.Unlock()
	var best *Target
	var total float64
	for _, t := range f.settings.Targets {
		if f.rankOf(t) != f.rank {
			continue
		}
		w := float64(t.weight.Load()) * t.slowStart(f.now, f.settings)
		t.turn += w
		total += w
		if best == nil || t.turn > best.turn {
			best = t
		}
	}
	if best != nil {
		best.turn -= total
	}
	return best
}
