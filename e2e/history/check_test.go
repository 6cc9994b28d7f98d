package history

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// example is a history in which all is well, and what the database holds after it.
func example() ([]Op, Content, Start) {
	at := func(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }
	ops := []Op{
		{ID: 1, Kind: Insert, Server: "s1", Begin: at(0), End: at(10), Outcome: OK, N: 7},
		{ID: 2, Kind: Insert, Server: "s2", Begin: at(0), End: at(10), Outcome: Failed, N: 7},
		{ID: 3, Kind: Insert, Server: "s2", Begin: at(0), End: at(10), Outcome: Unknown, N: 7},
		{ID: 4, Kind: Insert, Server: "s2", Begin: at(0), End: at(10), Outcome: Unknown, N: 7},
		{ID: 5, Kind: Transfer, Server: "s1", Begin: at(20), End: at(30), Outcome: OK, A: 1, B: 2, N: 30},
		{ID: 6, Kind: Sum, Server: "s1", Begin: at(20), End: at(30), Outcome: OK, N: 200},
		{ID: 7, Kind: Change, Server: "s1", Begin: at(40), End: at(50), Outcome: OK, A: 1, Old: 0, New: 7},
		{ID: 8, Kind: Read, Server: "s2", Begin: at(45), End: at(55), Outcome: OK, A: 1, Old: 7},
		{ID: 9, Kind: Change, Server: "s3", Begin: at(60), End: at(70), Outcome: Unknown, A: 1, Old: 7, New: 9},
		{ID: 10, Kind: Change, Server: "s3", Begin: at(60), End: at(70), Outcome: Unknown, A: 1, Old: 7, New: 10},
		{ID: 11, Kind: Read, Server: "s2", Begin: at(100), End: at(110), Outcome: OK, A: 1, Old: 7},
		{ID: 12, Kind: Read, Server: "s2", Begin: at(120), End: at(130), Outcome: OK, A: 1, Old: 9}, // the unknown one came late
		{ID: 13, Kind: Look, Server: "s2", Begin: at(140), End: at(150), Outcome: OK, A: 1, N: 1},
	}
	has := Content{
		Journal: []Row{
			{1, Insert, 0, 0, 7},
			{4, Insert, 0, 0, 7},
			{5, Transfer, 1, 2, 30},
			{7, Change, 1, 0, 7},
			{9, Change, 1, 7, 9},
		},
		Balances:  map[int64]int64{1: 70, 2: 130},
		Registers: map[int64]int64{1: 9},
	}
	return ops, has, Start{Accounts: 2, Registers: 1, Balance: 100}
}

func TestCheckFindsNothing(t *testing.T) {
	ops, has, start := example()
	if got := Check(ops, has, start); len(got) > 0 {
		t.Errorf("a sound history is said to be wrong: %q", got)
	}
}

// Each case spoils the example in one way, and the checker has to say which.
func TestCheckFinds(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(ops []Op, has *Content)
		want  string
	}{
		{"lost insert", func(_ []Op, has *Content) { has.Journal = has.Journal[1:] }, "acknowledged and missing: insert 1 "},
		{"lost transfer", func(_ []Op, has *Content) {
			has.Journal = append(has.Journal[:2:2], has.Journal[3:]...)
			has.Balances = map[int64]int64{1: 100, 2: 100}
		}, "acknowledged and missing: transfer 5 "},
		{"doubled insert", func(_ []Op, has *Content) { has.Journal = append(has.Journal, has.Journal[0]) }, "there twice: insert 1 "},
		{"doubled insert of unknown outcome", func(_ []Op, has *Content) { has.Journal = append(has.Journal, has.Journal[1]) }, "there twice: insert 4 "},
		{"refused insert", func(_ []Op, has *Content) { has.Journal = append(has.Journal, Row{2, Insert, 0, 0, 7}) }, "refused and there: insert 2 "},
		{"changed insert", func(_ []Op, has *Content) { has.Journal[0].N = 8 }, "another content: insert 1 "},
		{"insert from nowhere", func(_ []Op, has *Content) { has.Journal = append(has.Journal, Row{99, Insert, 0, 0, 7}) }, "nobody wrote it: {Op:99"},
		{"half a transfer", func(_ []Op, has *Content) { has.Balances[1] = 100 }, "sum not kept: account 1 has 100, and by its journal 70"},
		{"account gone", func(_ []Op, has *Content) { delete(has.Balances, 2) }, "sum not kept: 1 accounts have 70, want 2 with 200"},
		{"sum read in the middle of a transfer", func(ops []Op, _ *Content) { ops[5].N = 170 }, "sum read wrong: sum 6 "},
		{"stale read", func(ops []Op, _ *Content) { ops[10].Old = 0 }, "register 1: stale: read 11 "},
		{"read of what a later change wrote", func(ops []Op, _ *Content) { ops[7].Old = 9 }, "register 1: read 8 "},
		{"read of what was not committed", func(ops []Op, _ *Content) { ops[10].Old = 10 }, "found 10, which nobody wrote"},
		{"read that went back", func(ops []Op, _ *Content) { ops[10].Old, ops[11].Old = 9, 7 }, "not linearizable: register 1"},
		{"lost update", func(ops []Op, has *Content) {
			ops[9].Outcome = OK
			has.Journal = append(has.Journal, Row{10, Change, 1, 7, 10})
		}, "an update was lost: 7 was changed twice"},
		{"register lost its last change", func(_ []Op, has *Content) { has.Registers[1] = 7 }, "not linearizable: register 1"},
		{"stale at the address for reads", func(ops []Op, _ *Content) { ops[12].N = 0 }, "stale at the address for reads: look 13 "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ops, has, start := example()
			tt.spoil(ops, &has)
			got := strings.Join(Check(ops, has, start), "\n")
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want it to hold %q", got, tt.want)
			}
		})
	}
}

func TestCheckTellsAFew(t *testing.T) {
	var ops []Op
	for i := range 20 {
		ops = append(ops, Op{ID: int64(i + 1), Kind: Insert, Outcome: OK})
	}
	got := Check(ops, Content{}, Start{})
	if len(got) != maxTold+1 || got[maxTold] != "acknowledged and missing: 20 altogether" {
		t.Errorf("got %q, want %d single ones and their number", got, maxTold)
	}
}

func TestGap(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	ops := []Op{
		{Kind: Insert, Server: "s1", End: ms(100), Outcome: OK},
		{Kind: Read, Server: "s1", End: ms(300), Outcome: OK},
		{Kind: Insert, Server: "s1", End: ms(400), Outcome: Unknown},
		{Kind: Change, Server: "s1", End: ms(600), Outcome: OK},
		{Kind: Transfer, Server: "s2", End: ms(650), Outcome: OK},
	}
	for _, tt := range []struct {
		name     string
		from, to time.Duration
		servers  []string
		want     time.Duration
	}{
		{"between two acknowledged writes", 0, ms(700), []string{"s1"}, ms(500)},
		{"until the end", 0, ms(2000), []string{"s1", "s2"}, ms(1350)},
		{"from the beginning", 0, ms(700), []string{"s2"}, ms(650)},
		{"none", ms(700), ms(900), []string{"s1", "s2"}, ms(200)},
	} {
		if got := Gap(ops, tt.from, tt.to, tt.servers...); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	ops, _, _ := example()
	if err := Write(&b, ops[:1]); err != nil {
		t.Fatal(err)
	}
	want := `{"id":1,"kind":"insert","server":"s1","begin":0,"end":10000000,"outcome":"ok","a":0,"n":7}` + "\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
