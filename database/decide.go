package database

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"trivet/database/sst"
	"trivet/internal/part"
)

// view is all that a decision is made from.
type view struct {
	self    string
	members []part.Member
	role    part.DatabaseRole
	record  part.DatabaseRecord
	quorum  bool          // whether the cluster can agree, so that members and role are not stale
	running bool          // mariadbd runs here
	first   bool          // and was started alone
	died    bool          // it ended here and has not been synced since
	folder  folder        // what the data folder holds; looked at while mariadbd does not run
	mark    mark          // what the data folder took part in
	health  health        // the last check of the running mariadbd
	waking  bool          // the server was frozen until a moment ago: what mariadbd says may be of before
	stood   int64         // the position that the running node had when it was started, or left its group; -1: it is in one
	foreign time.Duration // for how long the mark has named a start that is not agreed
	missing time.Duration // for how long some server has been gone while no node is synced anywhere
	queued  time.Duration // for how long this node could have joined
	lonely  time.Duration // for how long this node has run without a synced node anywhere
	apart   time.Duration // for how long this node has run unconnected to the group
	nowhere time.Duration // for how long it has run without an answer or a group, and without getting a copy
	behind  time.Duration // for how long what it has to apply has been much, and not less
	copying bool          // it is receiving a full copy
	copy    sst.Progress
	disk    disk
	short   time.Duration // for how long the disk has been too full to go on
	ddl     ddl           // a change of a large table that is under way here
	full    bool          // mariadbd refuses writes, for want of room
	leaving time.Duration // for how long an operator has wanted it restarted; 0: it is not to be
	again   bool          // it is time to look again into a folder that was unreadable
}

// kind says what to do.
type kind int

const (
	wait      kind = iota // nothing now; why says for what
	read                  // look into the data folder
	refuse                // nothing until a person acts; why says what
	wipe                  // empty the data folder: it holds half of a copy
	join                  // start mariadbd as one of the group
	agree                 // propose next as the role, but for the writer
	alone                 // start mariadbd as the first of the group
	rescue                // declare this running node the group (pc.bootstrap)
	reconnect             // let the running node look for the group again
	stop                  // end the running mariadbd: it waits for nobody
)

var kindNames = [...]string{"wait", "read", "refuse", "wipe", "join", "agree", "alone", "rescue", "reconnect", "stop"}

func (k kind) String() string { return kindNames[k] }

// action is a decision.
type action struct {
	kind kind
	why  string            // for the operator; empty: nothing to say
	next part.DatabaseRole // for agree
	full bool              // for join: by a full copy, whatever the folder holds

	grace time.Duration // for stop: before force; 0 is a second
}

const (
	lonelyLimit = 8 * time.Second
	vainLimit   = time.Second // of lonelyLimit, where nobody can be joined
	queueLimit  = 8 * time.Second
	apartLimit  = 3 * time.Second
	behindLimit = 3 * time.Second
	// knotLimit is how long nodes that have fallen apart may take to find together.
	knotLimit = 15 * time.Second
	// missingLimit is how long two that can start without the third wait for it:
	// with its word, it need not be copied anew.
	missingLimit = 15 * time.Second
	// foreignLimit is how long a new supervisor may take to hear of the starts that were agreed.
	foreignLimit = 5 * time.Second
	// nowhereLimit is how long a node may run without getting anywhere, and
	// crowdedLimit the same while another joins, for which it may have to wait.
	nowhereLimit = 20 * time.Second
	crowdedLimit = time.Minute
)

// decide is what this server's supervisor does next, so that no two nodes
// found a group, and none does while another may hold newer data:
//
//   - Where a synced node is, one joins it.
//   - Where none is, the supervisors of all servers must have said what their
//     folders hold. The one that holds most starts alone, agreed by all. A
//     server that is gone is not waited for if the last writer is there: it has
//     all that was acknowledged.
//   - An old copy of a data folder is never followed, nor one that lacks what
//     is known to have been committed, nor what a former start left behind.
//   - A history other than the agreed one is never started, nor overwritten.
//   - An operator's word stands for what is not known (trivet db force-bootstrap).
func decide(v view) action {
	if v.running {
		return decideRunning(v)
	}
	return decideStopped(v)
}

func decideStopped(v view) action {
	switch {
	case !v.folder.looked && v.disk.below(diskStuck): // reading needs room
		return action{kind: refuse, why: "disk is full: " + v.disk.String()}
	case !v.folder.looked, v.folder.err != nil && v.again:
		return action{kind: read, why: "reading the data folder"}
	case v.folder.err != nil:
		return action{kind: refuse, why: fmt.Sprintf("%v; if another server is well, move the data folder away to get a full copy", v.folder.err)}
	case v.folder.partial:
		return action{kind: wipe}
	case v.noRoom():
		return action{kind: refuse, why: "disk is full: " + v.disk.String()}
	}
	if peer, ok := v.synced(); ok {
		return decideJoin(v, peer)
	}
	if v.role.Force.Server != "" || v.role.LastStart().Forced && v.chosen(v.folder.uuid, v.folder.seqno) {
		return decideForced(v)
	}
	if why := v.otherHistory(v.role.UUID); why != "" {
		return action{kind: refuse, why: why}
	}
	return decideFirst(v)
}

// decideForced is for when an operator said who starts.
func decideForced(v view) action {
	f := v.folder
	switch {
	case v.role.LastStart().Forced && v.chosen(f.uuid, f.seqno):
		return action{kind: alone}
	case v.role.Force.Server != v.self:
		return action{kind: wait, why: fmt.Sprintf("waiting for %s, which an operator chose to start first", v.role.Force.Server)}
	case f.uuid == "":
		return action{kind: refuse, why: "an operator chose this server to start first, but it holds no history"}
	}
	return v.choose(f.uuid, f.seqno, true)
}

func decideJoin(v view, peer part.Member) action {
	agreed := v.role.UUID
	if agreed == "" {
		agreed = peer.Database.UUID
	}
	full := ""
	if why := v.otherHistory(agreed); why != "" {
		if !v.givenUp() {
			return action{kind: refuse, why: why}
		}
		full = "an operator gave up what it held"
	}
	if why := v.doubt(v.own()); why != "" {
		full = why
	}
	if unknown(v.role.Starts, peer.Database.Start) {
		return action{kind: wait, why: fmt.Sprintf("waiting for the agreement on how %s was started", peer.Name)}
	}
	if name := v.ahead(); name != "" && v.queued < queueLimit {
		return action{kind: wait, why: fmt.Sprintf("waiting for %s, which joins first", name)}
	}
	if full != "" {
		return action{kind: join, full: true, why: "its data are replaced by a full copy: " + full}
	}
	return action{kind: join}
}

// ahead names a server that joins before this one. Two that join at once can
// stop the whole group for seconds.
func (v view) ahead() string {
	for _, m := range v.members {
		if m.Name == v.self || !m.Alive {
			continue
		}
		switch m.Database.State {
		case part.DatabaseJoining:
			return m.Name
		case part.DatabaseDown, part.DatabaseEmpty:
			if m.Name < v.self {
				return m.Name
			}
		}
	}
	return ""
}

// otherHistory says what is wrong if the folder holds another history than agreed.
func (v view) otherHistory(agreed string) string {
	if v.folder.uuid == "" || agreed == "" || v.folder.uuid == agreed {
		return ""
	}
	return fmt.Sprintf("the data folder holds another history (%s) than the agreed one (%s); move it away to get a full copy of the agreed one", v.folder.uuid, agreed)
}

// synced returns a synced member other than this one; none without quorum,
// for what the others said is stale then.
func (v view) synced() (part.Member, bool) {
	if !v.quorum {
		return part.Member{}, false
	}
	for _, m := range v.members {
		if m.Name != v.self && m.Database.State == part.DatabaseSynced {
			return m, true
		}
	}
	return part.Member{}, false
}

// decideFirst chooses who starts alone when no node is synced anywhere.
func decideFirst(v view) action {
	if why := v.unheard(); why != "" {
		if !v.suffices() || v.missing < missingLimit {
			return action{kind: wait, why: why}
		}
	}
	if why := v.disagreement(); why != "" {
		return action{kind: refuse, why: why}
	}
	return decideWinner(v)
}

// suffices reports whether only servers that are gone have not spoken, and
// their word is not needed: the writer has all that was acknowledged on its
// disk, and it is here.
func (v view) suffices() bool {
	if !v.quorum || v.unsaid() != "" || v.record.Epoch != v.role.Epoch || v.record.UUID == "" || v.record.UUID != v.role.UUID {
		return false
	}
	for _, h := range v.holdings() {
		if h.name == v.role.Writer {
			return h.UUID == v.role.UUID && v.doubt(h) == "" && v.lacking(h.UUID, h.Seqno) == 0
		}
	}
	return false
}

// disagreement says why the folders of the servers cannot be one site's.
func (v view) disagreement() string {
	holds := v.holdings()
	history := ""
	for _, h := range holds {
		if h.UUID == "" {
			continue
		}
		if history != "" && h.UUID != history {
			return "the servers hold different histories: " + describe(holds) + "; move the data folder away where the wrong one is"
		}
		history = h.UUID
	}
	switch {
	case history == "" && v.role.UUID != "":
		return fmt.Sprintf("the agreed history %s is on no server any more: restore a backup", v.role.UUID)
	case v.role.UUID != "" && history != v.role.UUID:
		return fmt.Sprintf("the servers hold history %s, but %s is the agreed one: restore a backup", history, v.role.UUID)
	}
	return ""
}

func decideWinner(v view) action {
	w, doubts := v.best()
	if w.name == "" {
		return action{kind: refuse, why: "no server holds data that can be followed: " + doubts + "; restore a backup, or choose with `trivet db force-bootstrap SERVER`"}
	}
	if n := v.lacking(w.UUID, w.Seqno); n > 0 {
		return action{kind: refuse, why: fmt.Sprintf("%s holds most (%d), but %s more had been committed: restore a backup, or go on without them by `trivet db force-bootstrap %s`", w.name, w.Seqno, counted(n), w.name)}
	}
	if w.name != v.self {
		return action{kind: wait, why: fmt.Sprintf("waiting for %s, which starts first", w.name)}
	}
	if !v.chosen(w.UUID, w.Seqno) {
		return v.choose(w.UUID, w.Seqno, false)
	}
	return action{kind: alone}
}

// best is the holding that the group is to start from, among those that can
// be followed; no name: there is none, and doubts says why.
func (v view) best() (w holding, doubts string) {
	var trusted []holding
	var why []string
	for _, h := range v.holdings() {
		if doubt := v.doubt(h); doubt != "" {
			why = append(why, h.name+": "+doubt)
			continue
		}
		trusted = append(trusted, h)
	}
	if len(trusted) == 0 || len(why) > 0 && first(trusted).UUID == "" {
		return holding{}, strings.Join(why, "; ")
	}
	return first(trusted), ""
}

// onlyMissing reports whether nothing but the word of servers that are gone is lacking.
func (v view) onlyMissing() bool {
	_, other := v.synced()
	return v.quorum && !other && v.unheard() != "" && v.unsaid() == ""
}

// unheard names the others that must speak, or must end, before anyone may start alone.
func (v view) unheard() string {
	var why []string
	for _, m := range v.members {
		if m.Name != v.self && !m.Alive {
			why = append(why, fmt.Sprintf("waiting for %s, which may hold newer data", m.Name))
		}
	}
	if said := v.unsaid(); said != "" {
		why = append(why, said)
	}
	if !v.quorum {
		why = append([]string{"waiting for the cluster's quorum"}, why...)
	}
	return strings.Join(why, "; ")
}

// unsaid names the others that are here and have not said what they hold.
func (v view) unsaid() string {
	var why []string
	for _, m := range v.members {
		switch {
		case m.Name == v.self, !m.Alive:
		case m.Database.State == part.DatabaseUnknown:
			why = append(why, fmt.Sprintf("waiting for %s to say what it holds", m.Name))
		case m.Database.State == part.DatabaseDown && m.Database.UUID == "":
			why = append(why, fmt.Sprintf("waiting for %s, whose data folder is unreadable", m.Name))
		case m.Database.State == part.DatabaseJoining:
			why = append(why, fmt.Sprintf("waiting for %s, which is starting", m.Name))
		}
	}
	return strings.Join(why, "; ")
}

type holding struct {
	name string
	part.DatabaseMember
}

// holdings is what each server's folder holds, by name; this one's from the
// folder itself. A server that is gone holds nothing here.
func (v view) holdings() []holding {
	var hs []holding
	for _, m := range v.members {
		switch {
		case m.Name == v.self && !v.running:
			hs = append(hs, v.own())
		case m.Name == v.self || m.Alive:
			hs = append(hs, holding{m.Name, m.Database})
		}
	}
	slices.SortFunc(hs, func(a, b holding) int { return strings.Compare(a.name, b.name) })
	return hs
}

// first is the holding with a history and the highest position, then the lowest name.
func first(holds []holding) holding {
	best := holds[0]
	for _, h := range holds[1:] {
		if h.UUID != "" && (best.UUID == "" || h.Seqno > best.Seqno) {
			best = h
		}
	}
	return best
}

func describe(holds []holding) string {
	var s []string
	for _, h := range holds {
		if h.UUID != "" {
			s = append(s, fmt.Sprintf("%s has %s:%d", h.name, h.UUID, h.Seqno))
		}
	}
	return strings.Join(s, ", ")
}

func decideRunning(v view) action {
	if v.leaving > 0 {
		return decideRestart(v)
	}
	if v.outOfDisk() {
		return decideDisk(v)
	}
	if why := v.strayed(); why != "" {
		return action{kind: stop, why: why + "; it starts anew with a full copy"}
	}
	if v.health.primary() {
		return decidePrimary(v)
	}
	if _, ok := v.synced(); ok {
		return decideJoining(v)
	}
	return decideSurvivor(v)
}

// decideJoining is for a node that is outside a group that is there.
func decideJoining(v view) action {
	h := v.health
	why := "joining"
	if h.answers && h.uuid != "" {
		why = "cut off from the group"
	}
	switch {
	case v.nowhere > crowdedLimit, v.nowhere > nowhereLimit && !v.crowded():
		return action{kind: stop, why: why + "; got nowhere and starts anew"}
	case h.answers && !h.connected && v.apart > apartLimit:
		return action{kind: reconnect, why: why}
	}
	return action{kind: wait, why: why}
}

// crowded reports whether another server joins too.
func (v view) crowded() bool {
	return slices.ContainsFunc(v.members, func(m part.Member) bool {
		return m.Name != v.self && m.Alive && m.Database.State == part.DatabaseJoining
	})
}

// strayed says why what this running node holds is no part of the history: it
// was apart when the group went on without it.
func (v view) strayed() string {
	switch {
	case !v.health.answers || v.health.uuid != v.role.UUID || v.chosen(v.health.uuid, v.health.seqno):
		return ""
	case v.foreign > foreignLimit:
		return "it took part in a start that was not agreed"
	case v.stood < 0 || unknown(v.role.Starts, v.mark.Start):
		return ""
	}
	return beyond(v.role.Starts, v.mark.Start, v.stood)
}

func decidePrimary(v view) action {
	h := v.health
	switch {
	case v.role.Force.Server != "" && h.synced() && h.uuid == v.role.UUID: // it is not needed any more
		next := v.role
		next.Force = part.DatabaseForce{}
		return action{kind: agree, next: next}
	case v.role.UUID != "" && h.uuid != v.role.UUID:
		return action{kind: refuse, why: fmt.Sprintf("the running database has another history (%s) than the agreed one (%s): stop it and move its data folder away", h.uuid, v.role.UUID)}
	case v.role.UUID == "" && v.role.Bootstrap == v.self && h.synced():
		next := v.role
		next.UUID = h.uuid
		return action{kind: agree, next: next}
	case !h.synced():
		return action{kind: wait, why: h.reason()}
	case v.waking:
		return action{kind: wait, why: "was frozen until a moment ago"}
	case v.lags():
		return action{kind: wait, why: fmt.Sprintf("fell behind: %d transactions wait to be applied", h.queue)}
	}
	return action{kind: wait}
}

// decideSurvivor is for a node that runs outside any group while no synced
// node is left. It may go on alone only if the supervisor of every other
// server confirms that its own mariadbd has ended with no newer data.
func decideSurvivor(v view) action {
	h := v.health
	if v.role.Force.Server == v.self && h.answers && h.uuid != "" && h.uuid == v.role.UUID {
		return v.choose(h.uuid, h.seqno, true)
	}
	if v.role.LastStart().Forced && v.chosen(h.uuid, h.seqno) {
		return action{kind: rescue, why: "going on alone: an operator chose it"}
	}
	why := v.unheard()
	if v.suffices() && v.missing >= missingLimit {
		why = ""
	}
	switch {
	case v.stranded():
		return action{kind: stop, why: "no group to join; starting anew"}
	case v.knotted():
		return action{kind: stop, why: "no group: " + why + ", and waits for this one; starting anew", grace: 10 * time.Second}
	case why != "" && v.cutOff():
		return action{kind: wait, why: "cut off: no other server is reachable (" + why + ")"}
	case why != "":
		return action{kind: wait, why: "no group: " + why}
	}
	if !h.answers || h.uuid == "" || h.uuid != v.role.UUID || h.primary() {
		return action{kind: wait, why: "joining"}
	}
	for _, m := range v.members {
		if m.Name == v.self || v.doubt(holding{m.Name, m.Database}) != "" {
			continue
		}
		if m.Database.UUID != "" && (m.Database.UUID != h.uuid || m.Database.Seqno > h.seqno) {
			return action{kind: stop, why: fmt.Sprintf("%s holds newer data; starting anew", m.Name)}
		}
	}
	if n := v.lacking(h.uuid, h.seqno); n > 0 {
		return action{kind: stop, why: fmt.Sprintf("it lacks %s that had been committed; starting anew", counted(n))}
	}
	if !v.chosen(h.uuid, h.seqno) {
		return v.choose(h.uuid, h.seqno, false)
	}
	return action{kind: rescue, why: "going on alone: the two others have ended"}
}

// cutOff reports whether this node was in a group and reaches nobody now.
func (v view) cutOff() bool {
	h := v.health
	return !v.quorum && h.answers && h.uuid != "" && len(h.names) <= 1
}

// stranded reports whether this node holds no history that it could go on
// with and has waited long for one. The first node of all is not: it will
// become the group by itself.
func (v view) stranded() bool {
	limit := lonelyLimit
	if v.unheard() == "" { // all others say that they run nothing: what it was started to join was of before a power failure
		limit = vainLimit
	}
	return v.quorum && !v.first && v.lonely > limit && (!v.health.answers || v.health.uuid == "" || v.health.seqno < 0)
}

// knotted reports whether this node and another wait for each other, each with
// the history but none with most of the last group, as when one of three is cut
// off for a moment in which another dies. Once they have ended, all servers say
// what they hold, and the one that holds most goes first.
func (v view) knotted() bool {
	if h := v.health; !v.quorum || v.lonely <= knotLimit || !h.answers || h.uuid == "" || h.primary() {
		return false
	}
	other := false
	for _, m := range v.members {
		switch {
		case m.Name == v.self:
		case !m.Alive, m.Database.State == part.DatabaseUnknown:
			return false
		case m.Database.State == part.DatabaseJoining:
			other = true
		}
	}
	return other
}
