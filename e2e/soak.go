package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"trivet/e2e/history"
)

// Soak has random faults befall the databases for a time.
type Soak struct {
	For  time.Duration
	Seed uint64 // the same seed makes the same faults
	Out  io.Writer
}

// say tells how far the soak is.
func (s Soak) say(format string, args ...any) { _, _ = fmt.Fprintf(s.Out, format, args...) }

// Bounds of one round of a soak. Faults of a round may overlap, and begin
// before the round before has healed.
const (
	roundFaults   = 3               // at most
	roundOffset   = 3 * time.Second // until the last one begins
	faultShortest = 100 * time.Millisecond
	faultLongest  = 6 * time.Second
	hurried       = 0.3 // of the rounds do not wait until all are synced
	roundLimit    = 3 * time.Minute
)

// hit is one fault of a round.
type hit struct {
	name        string
	server      string // "all" for all
	after, long time.Duration
	harm        deed
	mend        deed
}

func (h hit) String() string {
	return fmt.Sprintf("%s of %s at %.1f s for %.1f s", h.name, h.server, h.after.Seconds(), h.long.Seconds())
}

// kinds of faults that a soak may do to a server, with how often.
var soakKinds = []struct {
	name   string
	weight int
	harm   deed
	mend   deed // nil: it mends itself
}{
	{"kill mariadbd", 6, killDatabase, nil},
	{"end mariadbd", 2, term(mariadbd), nil},
	{"kill router", 3, killProcess(router), nil},
	{"kill node", 3, killProcess(nodeWord), nil},
	{"kill node and mariadbd", 2, killProcess(nodeWord, mariadbd), nil},
	{"power off", 5, powerOff, powerOn},
	{"stop cleanly", 1, shutdown, powerOn},
	{"unplug", 4, unplug, plugIn},
	{"deafen", 2, oneWay("in", "100"), plugIn},
	{"mute", 2, oneWay("out", "100"), plugIn},
	{"lose 20 of 100 packets", 2, oneWay("in", "20"), plugIn},
	{"freeze", 4, freeze, thaw},
	{"wipe disk", 2, inTurn(powerOff, wipe), powerOn},
}

// plan draws the faults of one round: at most one on each server, or the same on all.
func plan(r *rand.Rand) []hit {
	if r.IntN(10) == 0 {
		h := draw(r, false)
		h.server = string(All)
		return []hit{h}
	}
	var all []hit
	wiped := false
	for _, i := range r.Perm(len(Servers))[:1+r.IntN(roundFaults)] {
		h := draw(r, !wiped)
		h.server = Servers[i]
		wiped = wiped || h.name == "wipe disk"
		all = append(all, h)
	}
	return all
}

// draw draws one fault; disks are wiped only if it may.
func draw(r *rand.Rand, mayWipe bool) hit {
	sum := 0
	for _, k := range soakKinds {
		sum += k.weight
	}
	for n := r.IntN(sum); ; n = r.IntN(sum) {
		for _, k := range soakKinds {
			if n -= k.weight; n >= 0 {
				continue
			}
			if k.name == "wipe disk" && !mayWipe {
				break
			}
			return hit{
				name: k.name, harm: k.harm, mend: k.mend,
				after: time.Duration(r.Int64N(int64(roundOffset))),
				long:  faultShortest + time.Duration(r.Int64N(int64(faultLongest-faultShortest))),
			}
		}
	}
}

// SoakReport is what a soak showed.
type SoakReport struct {
	Rounds                 int
	Faults                 map[string]int // by name
	Gap                    time.Duration  // longest between acknowledged writes of any clients
	Synced                 time.Duration  // longest from the mending of a round until all were synced
	Acked, Failed, Unknown int
	Wrong                  []string
}

func (r SoakReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d rounds; longest time without an acknowledged write %.1f s; longest until all were synced again %.1f s\n", r.Rounds, r.Gap.Seconds(), r.Synced.Seconds())
	fmt.Fprintf(&b, "writes: %d acknowledged, %d refused, %d with unknown outcome; %d violations\n", r.Acked, r.Failed, r.Unknown, len(r.Wrong))
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		fmt.Fprintf(&b, "  %4d × %s\n", r.Faults[name], name)
	}
	return b.String()
}

// Soak runs s on the lab, which must be up, and checks the history. It returns
// the history too, for who wants to look.
func (l *Lab) Soak(ctx context.Context, s Soak) (r SoakReport, ops []history.Op, err error) {
	r.Faults = map[string]int{}
	s.say("soak for %s with seed %d\n", s.For, s.Seed)
	if err := l.becomesHealthy(ctx); err != nil {
		return r, nil, fmt.Errorf("before the soak: %w", err)
	}
	load, err := l.transactions(ctx)
	if err != nil {
		return r, nil, err
	}
	stop := begin(ctx, load)
	err = l.rounds(ctx, s, load, &r)
	err = errors.Join(err, stop())
	ops = load.History()
	n := history.Count(ops)
	r.Acked, r.Failed, r.Unknown = n[history.OK], n[history.Failed], n[history.Unknown]
	if err != nil {
		return r, ops, err
	}
	r.Gap = history.Gap(ops, 0, load.Since(), Servers...)
	r.Wrong, err = load.Audit(ctx)
	return r, ops, err
}

// rounds does one round after the other until the time is over, and ends with all synced.
func (l *Lab) rounds(ctx context.Context, s Soak, load Work, r *SoakReport) error {
	random := rand.New(rand.NewPCG(s.Seed, s.Seed))
	for whole := true; load.Since() < s.For; {
		hits := plan(random)
		hurry := random.Float64() < hurried
		if !whole { // a disk is lost only when the two others are synced
			hits = slices.DeleteFunc(hits, func(h hit) bool { return h.name == "wipe disk" })
		}
		r.Rounds++
		s.say("%7.1f s  round %d: %v", load.Since().Seconds(), r.Rounds, hits)
		for _, h := range hits {
			r.Faults[h.name+ofAll(h.server)]++
		}
		mended := l.round(ctx, load, hits)
		whole = !hurry || load.Since() >= s.For
		if !whole {
			s.say("\n")
			continue
		}
		if err := until(ctx, roundLimit, func() error { return l.Synced(ctx) }); err != nil {
			return fmt.Errorf("round %d: %w", r.Rounds, err)
		}
		took := load.Since() - mended
		r.Synced = max(r.Synced, took)
		s.say(": synced after %.1f s\n", took.Seconds())
		if err := acknowledged(ctx, load, load.Since(), enough); err != nil {
			return fmt.Errorf("round %d: %w", r.Rounds, err)
		}
	}
	return cmp.Or(l.becomesHealthy(ctx), pause(ctx, settled))
}

func ofAll(server string) string {
	if server == string(All) {
		return " on all three at once"
	}
	return ""
}

// round does the faults of one round, returns when all are mended, and says
// when the mending of the last one began. A fault that finds nothing to break,
// as another one has broken it, is none.
func (l *Lab) round(ctx context.Context, load Work, hits []hit) (mended time.Duration) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, h := range hits {
		wg.Go(func() {
			if pause(ctx, h.after) != nil {
				return
			}
			on := Servers
			if h.server != string(All) {
				on = []string{h.server}
			}
			begun := load.Since()
			_ = at(ctx, l, h.harm, on)
			if h.mend != nil && pause(ctx, h.long) == nil {
				begun = load.Since()
				_ = at(ctx, l, h.mend, on)
			}
			mu.Lock()
			defer mu.Unlock()
			mended = max(mended, begun)
		})
	}
	wg.Wait()
	return mended
}
