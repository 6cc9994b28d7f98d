package history

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// maxTold bounds how many violations of one sort are told one by one.
const maxTold = 5

// checkLimit bounds the search for an order of one register's operations.
const checkLimit = time.Minute

// report collects violations.
type report struct{ all []string }

// add tells of every sort of violation the first few and how many there are.
func (r *report) add(what string, each []string) {
	if len(each) == 0 {
		return
	}
	for _, e := range each[:min(maxTold, len(each))] {
		r.all = append(r.all, what+": "+e)
	}
	if len(each) > maxTold {
		r.all = append(r.all, fmt.Sprintf("%s: %d altogether", what, len(each)))
	}
}

// Check compares what the clients were told with what the database holds, and
// returns what is wrong; nothing if all is well.
func Check(ops []Op, has Content, start Start) []string {
	r := &report{}
	rows := rowsByOp(has.Journal)
	checkRows(r, ops, rows)
	checkSums(r, ops, has, start)
	checkRegisters(r, ops, rows, has, start)
	checkLooks(r, ops)
	return r.all
}

func rowsByOp(journal []Row) map[int64][]Row {
	rows := make(map[int64][]Row, len(journal))
	for _, row := range journal {
		rows[row.Op] = append(rows[row.Op], row)
	}
	return rows
}

// checkRows finds lost, doubled, refused, changed and unheard-of rows.
func checkRows(r *report, ops []Op, rows map[int64][]Row) {
	var lost, twice, refused, other, nobody []string
	known := make(map[int64]bool, len(ops))
	for _, o := range ops {
		if !o.Kind.writes() {
			continue
		}
		known[o.ID] = true
		have := rows[o.ID]
		switch {
		case o.Outcome == OK && len(have) == 0:
			lost = append(lost, o.String())
		case len(have) > 1:
			twice = append(twice, o.String())
		case o.Outcome == Failed && len(have) > 0:
			refused = append(refused, o.String())
		case len(have) == 1 && have[0] != o.row():
			other = append(other, fmt.Sprintf("%s has left %+v", o, have[0]))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		if !known[id] {
			nobody = append(nobody, fmt.Sprintf("%+v", rows[id][0]))
		}
	}
	r.add("acknowledged and missing", lost)
	r.add("there twice", twice)
	r.add("refused and there", refused)
	r.add("there, but with another content", other)
	r.add("there, though nobody wrote it", nobody)
}

// String names the operation for a person.
func (o Op) String() string {
	s := fmt.Sprintf("%s %d by a client of %s, %.3f–%.3f s, %s", o.Kind, o.ID, o.Server, o.Begin.Seconds(), o.End.Seconds(), o.Outcome)
	if o.Error != "" {
		s += " (" + o.Error + ")"
	}
	return s
}

// checkSums finds money that was made or lost: in all, for one account by its
// journal, and in what was read meanwhile.
func checkSums(r *report, ops []Op, has Content, start Start) {
	want := map[int64]int64{}
	for i := range start.Accounts {
		want[int64(i+1)] = start.Balance
	}
	for _, row := range has.Journal {
		if row.Kind == Transfer {
			want[row.A] -= row.N
			want[row.B] += row.N
		}
	}
	var wrong, read []string
	total, all := int64(0), int64(start.Accounts)*start.Balance
	for _, a := range slices.Sorted(maps.Keys(want)) {
		total += has.Balances[a]
		if has.Balances[a] != want[a] {
			wrong = append(wrong, fmt.Sprintf("account %d has %d, and by its journal %d", a, has.Balances[a], want[a]))
		}
	}
	if total != all || len(has.Balances) != start.Accounts {
		wrong = append(wrong, fmt.Sprintf("%d accounts have %d, want %d with %d", len(has.Balances), total, start.Accounts, all))
	}
	for _, o := range ops {
		if o.Kind == Sum && o.Outcome == OK && o.N != all {
			read = append(read, fmt.Sprintf("%s: %d, want %d", o, o.N, all))
		}
	}
	r.add("sum not kept", wrong)
	r.add("sum read wrong", read)
}

// checkLooks finds reads at the address for reads that missed what had been
// acknowledged before they began.
func checkLooks(r *report, ops []Op) {
	var stale []string
	for _, o := range ops {
		if o.Kind == Look && o.Outcome == OK && o.N != 1 {
			stale = append(stale, fmt.Sprintf("%s: operation %d is there %d times", o, o.A, o.N))
		}
	}
	r.add("stale at the address for reads", stale)
}

// checkRegisters finds registers whose operations fit no order that one
// server could have done them in, each between its begin and its end.
func checkRegisters(r *report, ops []Op, rows map[int64][]Row, has Content, start Start) {
	var wrong []string
	for key := range start.Registers {
		id := int64(key + 1)
		history := registerHistory(ops, rows, id, has.Registers[id])
		switch porcupine.CheckOperationsTimeout(register, history, checkLimit) {
		case porcupine.Ok:
		case porcupine.Illegal:
			wrong = append(wrong, fmt.Sprintf("register %d: %s", id, explain(history)))
		case porcupine.Unknown:
			wrong = append(wrong, fmt.Sprintf("register %d: its %d operations were not put into an order within %s", id, len(history), checkLimit))
		}
	}
	r.add("not linearizable", wrong)
}

// touch is what an operation did to a register: it found old, and left new if it changed it.
type touch struct {
	changes  bool
	old, new int64
	what     string
}

// register is porcupine's model of one register, which begins with 0.
var register = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, _ any) (bool, any) {
		t, now := input.(touch), state.(int64)
		if t.changes {
			return t.old == now, t.new
		}
		return t.old == now, now
	},
}

// registerHistory is what happened to one register. Changes whose outcome is
// unknown have happened if the journal says so, for it is written in the same
// transaction; then they end at no known time. The last read is that of the check.
func registerHistory(ops []Op, rows map[int64][]Row, key, last int64) []porcupine.Operation {
	var history []porcupine.Operation
	end := int64(0)
	for _, o := range ops {
		end = max(end, int64(o.End))
		if o.A != key || o.Kind != Read && o.Kind != Change || o.Kind == Read && o.Outcome != OK || o.Outcome == Failed {
			continue
		}
		if o.Outcome == Unknown && len(rows[o.ID]) == 0 {
			continue
		}
		p := porcupine.Operation{Input: touch{o.Kind == Change, o.Old, o.New, o.String()}, Call: int64(o.Begin), Return: int64(o.End)}
		if o.Outcome == Unknown {
			p.Return = math.MaxInt64
		}
		history = append(history, p)
	}
	return append(history, porcupine.Operation{Input: touch{old: last, what: "the last look"}, Call: end + 1, Return: math.MaxInt64})
}

// explain names the likeliest reason why a history fits no order.
func explain(history []porcupine.Operation) string {
	leavers, takers := map[int64]porcupine.Operation{0: {Call: math.MinInt64, Return: math.MinInt64, Input: touch{what: "the beginning"}}}, map[int64]touch{}
	for _, o := range history {
		if t := o.Input.(touch); t.changes {
			if other, taken := takers[t.old]; taken {
				return fmt.Sprintf("an update was lost: %d was changed twice, by %s and by %s", t.old, other.what, t.what)
			}
			takers[t.old], leavers[t.new] = t, o
		}
	}
	for _, o := range history {
		t := o.Input.(touch)
		by, made := leavers[t.old]
		if !made {
			return fmt.Sprintf("%s found %d, which nobody wrote", t.what, t.old)
		}
		if by.Call > o.Return {
			return fmt.Sprintf("%s found %d, which was written only later by %s", t.what, t.old, by.Input.(touch).what)
		}
		if next, changed := takers[t.old]; changed && leavers[next.new].Return < o.Call {
			return fmt.Sprintf("stale: %s found %d, which had been changed before it began, by %s", t.what, t.old, next.what)
		}
	}
	return fmt.Sprintf("its %d operations fit no order", len(history))
}
