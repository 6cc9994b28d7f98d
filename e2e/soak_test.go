package e2e

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// What a soak does can be survived: at most one disk is lost in a round, and no
// server gets two faults of one round. All kinds come up.
func TestSoakPlan(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	seen := map[string]int{}
	for range 2000 {
		var servers []string
		wiped := 0
		for _, h := range plan(r) {
			seen[h.name]++
			if h.name == "wipe disk" {
				wiped++
			}
			if h.name == "wipe disk" && h.server == string(All) {
				t.Error("all disks are wiped")
			}
			servers = append(servers, h.server)
		}
		slices.Sort(servers)
		if wiped > 1 || len(servers) == 0 || len(slices.Compact(slices.Clone(servers))) != len(servers) {
			t.Fatalf("a round wipes %d disks, on servers %v", wiped, servers)
		}
	}
	for _, k := range soakKinds {
		if seen[k.name] == 0 {
			t.Errorf("%s never comes up", k.name)
		}
	}
}

func TestSoakPlanRepeats(t *testing.T) {
	one, two := rand.New(rand.NewPCG(7, 7)), rand.New(rand.NewPCG(7, 7))
	for range 50 {
		a, b := plan(one), plan(two)
		if len(a) != len(b) {
			t.Fatal("the same seed makes other rounds")
		}
		for i := range a {
			if a[i].String() != b[i].String() {
				t.Fatalf("the same seed makes %s and %s", a[i], b[i])
			}
		}
	}
}
