package database

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"trivet/internal/part"
)

// view is all that a decision is made from.
type view struct {
	self    string
	members []part.Member
	role    part.DatabaseRole
	quorum  bool          // whether the cluster can agree, so that members and role are not stale
	running bool          // mariadbd runs here
	first   bool          // and was started alone
	died    bool          // it ended here and has not been synced since
	folder  folder        // what the data folder holds; looked at while mariadbd does not run
	health  health        // the last check of the running mariadbd
	waking  bool          // the server was frozen until a moment ago: what mariadbd says may be of before
	queued  time.Duration // for how long this node could have joined
	lonely  time.Duration // for how long this node has run without a synced node anywhere
	apart   time.Duration // for how long this node has run unconnected to the group
	nowhere time.Duration // for how long it has run without an answer or a group, and without getting a copy
	behind  time.Duration // for how long what it has to apply has been much, and not less
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
	agree                 // propose next as the role's Bootstrap and UUID
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
	next part.DatabaseRole // for agree: its Bootstrap and UUID

	grace time.Duration // for stop: before force; 0 is a second
}

const (
	lonelyLimit = 8 * time.Second
	queueLimit  = 8 * time.Second
	apartLimit  = 3 * time.Second
	behindLimit = 3 * time.Second
	// knotLimit is how long nodes that have fallen apart may take to find together.
	knotLimit = 15 * time.Second
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
//     folders hold. The one that holds most starts alone, agreed by all.
//   - A history other than the agreed one is never started, nor overwritten.
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
	if why := v.otherHistory(v.role.UUID); why != "" {
		return action{kind: refuse, why: why}
	}
	return decideFirst(v)
}

func decideJoin(v view, peer part.Member) action {
	agreed := v.role.UUID
	if agreed == "" {
		agreed = peer.Database.UUID
	}
	if why := v.otherHistory(agreed); why != "" {
		return action{kind: refuse, why: why}
	}
	if name := v.ahead(); name != "" && v.queued < queueLimit {
		return action{kind: wait, why: fmt.Sprintf("waiting for %s, which joins first", name)}
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
		return action{kind: wait, why: why}
	}
	if why := v.disagreement(); why != "" {
		return action{kind: refuse, why: why}
	}
	return decideWinner(v)
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
	w := first(v.holdings())
	if w.name != v.self {
		return action{kind: wait, why: fmt.Sprintf("waiting for %s, which starts first", w.name)}
	}
	if v.role.Bootstrap != v.self || v.role.UUID != w.UUID {
		return action{kind: agree, next: part.DatabaseRole{Bootstrap: v.self, UUID: w.UUID}}
	}
	return action{kind: alone}
}

// unheard names the others that must speak, or must end, before anyone may start alone.
func (v view) unheard() string {
	var why []string
	if !v.quorum {
		why = append(why, "waiting for the cluster's quorum")
	}
	for _, m := range v.members {
		switch {
		case m.Name == v.self:
		case !m.Alive:
			why = append(why, fmt.Sprintf("waiting for %s, which may hold newer data", m.Name))
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

// holdings is what each server's folder holds, by name; this one's from the folder itself.
func (v view) holdings() []holding {
	var hs []holding
	for _, m := range v.members {
		h := holding{m.Name, m.Database}
		if m.Name == v.self {
			h.UUID, h.Seqno = v.folder.uuid, v.folder.seqno
		}
		hs = append(hs, h)
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

func decidePrimary(v view) action {
	h := v.health
	switch {
	case v.role.UUID != "" && h.uuid != v.role.UUID:
		return action{kind: refuse, why: fmt.Sprintf("the running database has another history (%s) than the agreed one (%s): stop it and move its data folder away", h.uuid, v.role.UUID)}
	case v.role.UUID == "" && v.role.Bootstrap == v.self && h.synced():
		return action{kind: agree, next: part.DatabaseRole{Bootstrap: v.self, UUID: h.uuid}}
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
	switch why := v.unheard(); {
	case v.stranded():
		return action{kind: stop, why: "no group to join; starting anew"}
	case v.knotted():
		return action{kind: stop, why: "no group: " + why + ", and waits for this one; starting anew", grace: 10 * time.Second}
	case why != "" && v.cutOff():
		return action{kind: wait, why: "cut off: no other server is reachable (" + why + ")"}
	case why != "":
		return action{kind: wait, why: "no group: " + why}
	}
	h := v.health
	if !h.answers || h.uuid == "" || h.uuid != v.role.UUID || h.primary() {
		return action{kind: wait, why: "joining"}
	}
	for _, m := range v.members {
		if m.Name != v.self && m.Database.UUID != "" && (m.Database.UUID != h.uuid || m.Database.Seqno > h.seqno) {
			return action{kind: stop, why: fmt.Sprintf("%s holds newer data; starting anew", m.Name)}
		}
	}
	if v.role.Bootstrap != v.self {
		return action{kind: agree, next: part.DatabaseRole{Bootstrap: v.self, UUID: h.uuid}}
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
	return v.quorum && !v.first && v.lonely > lonelyLimit && (!v.health.answers || v.health.uuid == "" || v.health.seqno < 0)
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
