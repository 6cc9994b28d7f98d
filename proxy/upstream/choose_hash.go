package upstream

import "math"

const (
	hashBound = 1.25 // times the mean load, above which a key goes to its next target
	hashSlack = 4    // requests in flight that any target may have
)

// KeyOf returns the key for the policy Hash of what b holds. It is the same on
// every machine and in every release.
func KeyOf[T string | []byte](b T) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(b) {
		h = (h ^ uint64(b[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the finalizer of MurmurHash3.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// hash is weighted rendezvous hashing: each target draws a number from the key
// and the best one wins, so that a target that goes takes only its own keys
// with it. One with more than its share of the load is passed over (consistent
// hashing with bounded loads, Mirrokni et al. 2016).
func (f *field) hash() *Target {
	load, weight := f.total()
	var best, any *Target
	var bestScore, anyScore float64
	for _, t := range f.settings.Targets {
		if f.rankOf(t) != f.rank || !f.grown(t) {
			continue
		}
		w := float64(t.weight.Load())
		score := w / -math.Log(unit(mix(f.choice.Key^t.hash)))
		if score > anyScore {
			any, anyScore = t, score
		}
		bound := max(math.Ceil(hashBound*load*w/weight), hashSlack)
		if score > bestScore && float64(t.inFlight.Load()) < bound {
			best, bestScore = t, score
		}
	}
	if best == nil {
		return any
	}
	return best
}

// total is the load of the candidates, the new request with it, and their weight.
func (f *field) total() (load, weight float64) {
	load = 1
	for _, t := range f.settings.Targets {
		if f.rankOf(t) == f.rank {
			load += float64(t.inFlight.Load())
			weight += float64(t.weight.Load())
		}
	}
	return load, weight
}

// grown says whether slow start has come so far that t has this key again: keys
// come back one after the other, and stay.
func (f *field) grown(t *Target) bool {
	part := t.slowStart(f.now, f.settings)
	return part >= 1 || unit(mix(f.choice.Key+t.hash)) < part
}

// unit makes a number between 0 and 1, both excluded, of a hash.
func unit(h uint64) float64 { return (float64(h>>11) + 0.5) / (1 << 53) }
