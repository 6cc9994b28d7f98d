package e2e

import (
	"cmp"
	"flag"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"
)

var (
	soakFor  = flag.Duration("soak-for", 35*time.Second, "how long TestDatabaseSoak has faults befall the databases")
	soakSeed = flag.Uint64("soak-seed", 0, "of its faults; 0: a new one, which is printed")
)

var trials = flag.String("trials", "", "regular expression: TestDatabaseTrials has the trials whose names match, long ones too; empty: all that are not long")

// Each fault under a load of transactions through the routers of all servers:
// nothing acknowledged is lost or doubled, sums are kept, and what was read is
// what one server could have said.
func TestDatabaseTrials(t *testing.T) {
	ensureUp(t)
	wanted := regexp.MustCompile(*trials)
	for _, trial := range Trials {
		if wanted.MatchString(trial.Name) && (*trials != "" || !trial.Long) {
			t.Run(trial.Name, func(t *testing.T) { survives(t, trial) })
		}
	}
}

// The power of all three goes off at once and comes back at once: they recover
// by themselves, with all that was acknowledged.
func TestDatabaseCrash(t *testing.T) {
	ensureUp(t)
	survives(t, Crash)
}

func survives(t *testing.T, trial Trial) {
	t.Helper()
	f, err := ring.Try(t.Context(), trial)
	t.Log("MEASURE " + f.String())
	for _, e := range f.Errors[:min(6, len(f.Errors))] {
		t.Log(e)
	}
	for _, w := range f.Wrong {
		t.Error(w)
	}
	if err != nil {
		t.Error(err)
	}
}

// Random faults, overlapping ones too, for a while: the short form of `make soak-database`.
func TestDatabaseSoak(t *testing.T) {
	ensureUp(t)
	r, _, err := ring.Soak(t.Context(), Soak{For: *soakFor, Seed: cmp.Or(*soakSeed, rand.Uint64N(1_000_000)), Out: t.Output()})
	t.Log(r)
	for _, w := range r.Wrong {
		t.Error(w)
	}
	if err != nil {
		t.Fatal(err)
	}
	if r.Rounds < 2 || r.Acked < 100 {
		t.Errorf("%d rounds with %d acknowledged writes: the soak did nothing", r.Rounds, r.Acked)
	}
}
