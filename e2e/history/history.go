// Package history puts transactions on a database through several of its
// addresses at once, writes down when each began and ended and what its client
// was told, and checks afterwards that the database kept its word: nothing
// acknowledged is lost, nothing is there twice, nothing is there that was
// refused, sums are kept, and what was read is what a single, never failing
// server could have said.
//
// The load's clients know nothing of a cluster; what they expect, any app does.
// All clients run in one process, so that one clock orders all operations.
package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// Kind says what an operation does.
type Kind string

// The kinds. Those that write leave one row in the journal, in the same
// transaction as the rest of what they do.
const (
	Insert   Kind = "insert"   // one row, without a transaction around it
	Transfer Kind = "transfer" // N from account A to account B
	Change   Kind = "change"   // register A from Old, as it was read, to New
	Read     Kind = "read"     // register A is Old
	Sum      Kind = "sum"      // all accounts together have N
	Look     Kind = "look"     // at the address for reads: N is 1 if the journal has operation A, which had been acknowledged before
)

// Outcome is what the client was told.
type Outcome string

// The outcomes.
const (
	OK      Outcome = "ok"
	Failed  Outcome = "failed"  // it has not happened, and will not
	Unknown Outcome = "unknown" // it may have happened, or happen yet
)

// Op is one operation of one client.
type Op struct {
	ID      int64         `json:"id"`
	Kind    Kind          `json:"kind"`
	Server  string        `json:"server"` // whose address the client uses
	Begin   time.Duration `json:"begin"`  // since the load began, by a clock that only goes forward
	End     time.Duration `json:"end"`
	Outcome Outcome       `json:"outcome"`
	Error   string        `json:"error,omitempty"`

	A   int64 `json:"a"`
	B   int64 `json:"b,omitempty"`
	N   int64 `json:"n,omitempty"`
	Old int64 `json:"old,omitempty"`
	New int64 `json:"new,omitempty"`
}

// writes reports whether operations of this kind change the database.
func (k Kind) writes() bool { return k == Insert || k == Transfer || k == Change }

// Row is what a writing operation leaves in the journal.
type Row struct {
	Op      int64
	Kind    Kind
	A, B, N int64
}

// row is what op has to leave.
func (o Op) row() Row {
	if o.Kind == Change {
		return Row{o.ID, o.Kind, o.A, o.Old, o.New}
	}
	return Row{o.ID, o.Kind, o.A, o.B, o.N}
}

// Content is all that a database holds of a load.
type Content struct {
	Journal   []Row           // in the order of its keys
	Balances  map[int64]int64 // by account
	Registers map[int64]int64 // by register
}

// Start is what the tables hold before the load.
type Start struct {
	Accounts, Registers int   // numbered from 1
	Balance             int64 // of each account; registers begin with 0
}

// Gap is the longest time between from and to in which no writing operation of
// the clients of any of these servers was acknowledged.
func Gap(ops []Op, from, to time.Duration, servers ...string) time.Duration {
	var acks []time.Duration
	for _, o := range ops {
		if o.Kind.writes() && o.Outcome == OK && o.End > from && o.End < to && slices.Contains(servers, o.Server) {
			acks = append(acks, o.End)
		}
	}
	slices.Sort(acks)
	longest, last := time.Duration(0), from
	for _, t := range append(acks, to) {
		longest, last = max(longest, t-last), t
	}
	return longest
}

// Count says how many operations that write had each outcome.
func Count(ops []Op) map[Outcome]int {
	n := map[Outcome]int{}
	for _, o := range ops {
		if o.Kind.writes() {
			n[o.Outcome]++
		}
	}
	return n
}

// Write writes ops as lines of JSON.
func Write(w io.Writer, ops []Op) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	for _, o := range ops {
		if err := e.Encode(o); err != nil {
			return fmt.Errorf("write history: %w", err)
		}
	}
	return b.Flush()
}
