package database

import (
	"slices"
	"strings"
	"time"

	"trivet/internal/part"
)

const (
	// stagger is how long the next in line waits for the one before it to propose a writer.
	stagger = 400 * time.Millisecond
	// grace is how long a writer that is in the group may take to be synced again.
	grace = 700 * time.Millisecond
)

// ballot is what a writer election is decided from.
type ballot struct{ view }

// elect returns the server to propose as the writer, and how long after the
// writer was lost to propose it; "" if there is nothing to propose, or nobody to agree. The writer
// stays as long as it is synced: no fail-back.
func (b ballot) elect() (writer string, after time.Duration) {
	cs := b.candidates()
	if !b.quorum || len(cs) == 0 || slices.Contains(cs, b.role.Writer) {
		return "", 0
	}
	rank := slices.Index(cs, b.self)
	switch {
	case b.died && !b.running && b.role.Writer == b.self:
		return cs[0], 0
	case rank < 0:
		return "", 0
	}
	after = time.Duration(rank) * stagger
	if b.returning() {
		after += grace
	}
	return cs[0], after
}

// returning reports whether the writer is in this node's group and on its way:
// the whole group was interrupted for a moment. It is given one to be synced,
// for each change of the writer closes all connections.
func (b ballot) returning() bool {
	w, ok := part.State{Members: b.members}.Member(b.role.Writer)
	return ok && w.Alive && w.Database.State == part.DatabaseJoining &&
		b.running && b.health.primary() && slices.Contains(b.health.names, w.Name)
}

// candidates are the synced members by name, the drained ones last. This server's own group, if it is
// in one, has the last word: who left it is gone, whatever it said before.
func (b ballot) candidates() []string {
	var cs, drained []string
	for _, m := range b.members {
		switch {
		case !b.candidate(m):
		case m.Drained:
			drained = append(drained, m.Name)
		default:
			cs = append(cs, m.Name)
		}
	}
	slices.SortFunc(cs, strings.Compare)
	slices.SortFunc(drained, strings.Compare)
	return append(cs, drained...)
}

func (b ballot) candidate(m part.Member) bool {
	if m.Name == b.self {
		return b.running && b.serves()
	}
	if !m.Alive || m.Database.State != part.DatabaseSynced {
		return false
	}
	if b.role.UUID != "" && m.Database.UUID != b.role.UUID {
		return false
	}
	return !b.running || !b.health.primary() || slices.Contains(b.health.names, m.Name)
}

// serves reports whether this server's node counts as synced. While it gives a
// full copy it does so only if it is the writer or nobody else is synced: it
// may lag, but somebody has to write.
func (v view) serves() bool {
	h := v.health
	if v.waking || v.leaving > 0 {
		return false
	}
	if v.role.UUID != "" && h.uuid != v.role.UUID {
		return false
	}
	if h.synced() {
		return !v.lags() && !v.outOfDisk()
	}
	if !h.donor() {
		return false
	}
	_, other := v.synced()
	return v.role.Writer == v.self || !other
}

// lags reports whether this node does not get on with what the group commits,
// and so holds it up, while another is there to serve.
func (v view) lags() bool {
	_, other := v.synced()
	return other && v.behind > behindLimit
}
