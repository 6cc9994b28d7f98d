package database

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"trivet/internal/atomicfile"
	"trivet/internal/part"
)

// Galera knows a history by a UUID and positions in it by numbers. Neither
// tells an old copy of a data folder from the folder itself, nor transactions
// that the group went on without from those that took their numbers. So each
// data folder carries a mark, and the cluster remembers what marks there are.

// markFile lies in the data folder.
const markFile = "trivet.json"

// mark says what a data folder took part in.
type mark struct {
	Start  string `json:"start"`  // the newest of the agreed starts; empty: none, or a copy that was never synced
	Launch int64  `json:"launch"` // how often mariadbd was started on it
}

// readMark reads the folder's mark; the zero value if there is none.
func readMark(dir string) (mark, error) {
	var m mark
	data, err := os.ReadFile(filepath.Join(dir, markFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return mark{}, fmt.Errorf("read mark of the data folder: %w", err)
	}
	return m, nil
}

func (m mark) write(dir string) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(dir, markFile), data, 0o600, -1, -1); err != nil {
		return fmt.Errorf("mark data folder: %w", err)
	}
	return nil
}

// keptStarts is how many starts are remembered. A mark of an older one counts as another group's.
const keptStarts = 64

// beyond says why data marked with start, up to seqno, is no part of what
// the group went on from; empty if it is.
func beyond(starts []part.DatabaseStart, start string, seqno int64) string {
	if unknown(starts, start) {
		return "it comes from another group"
	}
	i := slices.IndexFunc(starts, func(s part.DatabaseStart) bool { return s.ID == start })
	for _, s := range starts[i+1:] {
		if seqno > s.Seqno {
			return fmt.Sprintf("the group went on without %s that it holds when %s started it alone", counted(seqno-max(s.Seqno, 0)), s.Server)
		}
	}
	return ""
}

// unknown reports whether start is none of starts.
func unknown(starts []part.DatabaseStart, start string) bool {
	return start != "" && !slices.ContainsFunc(starts, func(s part.DatabaseStart) bool { return s.ID == start })
}

// doubt says why what a server holds is not to be followed; empty if it may be.
func (v view) doubt(h holding) string {
	if h.UUID == "" || v.role.UUID != "" && h.UUID != v.role.UUID {
		return "" // that is told elsewhere
	}
	if h.Old {
		return "it is an old copy: the database has run on a newer one there"
	}
	return beyond(v.role.Starts, h.Start, h.Seqno)
}

// own is what this server's stopped node holds.
func (v view) own() holding {
	h := holding{name: v.self}
	h.UUID, h.Seqno, h.Start, h.Old = v.folder.uuid, v.folder.seqno, v.mark.Start, v.old()
	return h
}

// old reports whether mariadbd has run here on a newer data folder than this
// one. Each server judges its own: it raises the mark before the record.
func (v view) old() bool { return v.folder.uuid != "" && v.mark.Launch < v.record.Launches[v.self] }

// lacking says how many transactions of what is known to have been committed a position lacks.
func (v view) lacking(uuid string, seqno int64) int64 {
	if uuid == "" || v.record.UUID != uuid {
		return 0
	}
	return max(0, v.committed()-seqno)
}

// committed is the position that is remembered, but for what an operator has given up since.
func (v view) committed() int64 {
	known := v.record.Committed
	i := slices.IndexFunc(v.role.Starts, func(s part.DatabaseStart) bool { return s.ID == v.record.Start })
	for _, s := range v.role.Starts[i+1:] {
		if s.Forced {
			known = min(known, s.Seqno)
		}
	}
	return known
}

// chosen reports whether this server was agreed to start the group from
// exactly what it holds, and has not done so.
func (v view) chosen(uuid string, seqno int64) bool {
	last := v.role.LastStart()
	return last.Server == v.self && v.role.Bootstrap == v.self && v.role.UUID == uuid && last.Seqno == seqno && last.ID != v.mark.Start
}

// choose is the agreement that this server starts the group from what it holds.
func (v view) choose(uuid string, seqno int64, forced bool) action {
	next := v.role
	next.Bootstrap, next.UUID = v.self, uuid
	start := part.DatabaseStart{Server: v.self, Seqno: seqno, Forced: forced}
	if forced {
		start.Lost, next.Force = v.role.Force.Lose, part.DatabaseForce{}
	}
	next.Starts = append(slices.Clone(v.role.Starts), start)
	if over := len(next.Starts) - keptStarts; over > 0 {
		next.Starts = next.Starts[over:]
	}
	return action{kind: agree, next: next}
}

// givenUp reports whether an operator gave up what this server held before the last starts.
func (v view) givenUp() bool {
	i := slices.IndexFunc(v.role.Starts, func(s part.DatabaseStart) bool { return s.ID == v.mark.Start })
	return slices.ContainsFunc(v.role.Starts[i+1:], func(s part.DatabaseStart) bool { return slices.Contains(s.Lost, v.self) })
}

// counted is a number of transactions, in words.
func counted(n int64) string {
	if n == 1 {
		return "1 transaction"
	}
	return fmt.Sprintf("%d transactions", n)
}

// unready makes mariadbd take a full copy whatever the folder holds. The old
// data stay until the copy arrives.
func unready(dir string) error {
	for _, name := range []string{"grastate.dat", "gvwstate.dat", "galera.cache"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("ready data folder for a full copy: %w", err)
		}
	}
	return nil
}
