package e2e

import (
	"flag"
	"regexp"
	"testing"
)

var trials = flag.String("trials", "", "regular expression: TestDatabaseTrials has the trials whose names match, long ones too; empty: all that are not long")

// Each fault under a load of transactions through the routers of all servers:
// nothing acknowledged is lost or doubled, sums are kept, and what was read is
// what one server could have said.
func TestDatabaseTrials(t *testing.T) {
	ensureUp(t)
	wanted := regexp.MustCompile(*trials)
	var all []Figures
	for _, trial := range Trials {
		if !wanted.MatchString(trial.Name) || *trials == "" && trial.Long {
			continue
		}
		t.Run(trial.Name, func(t *testing.T) {
			f, err := ring.Try(t.Context(), trial)
			all = append(all, f)
			t.Log(f)
			for _, e := range f.Errors[:min(6, len(f.Errors))] {
				t.Log(e)
			}
			for _, w := range f.Wrong {
				t.Error(w)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	for _, f := range all {
		t.Log("MEASURE " + f.String())
	}
}
