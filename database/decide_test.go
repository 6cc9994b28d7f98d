package database

import (
	"errors"
	"strings"
	"testing"
	"time"

	"trivet/internal/part"
)

const (
	historyA = "aaaaaaaa-0000-0000-0000-000000000000"
	historyB = "bbbbbbbb-0000-0000-0000-000000000000"
)

func member(name, state, uuid string, seqno int64) part.Member {
	return part.Member{Name: name, Alive: true, Database: part.DatabaseMember{State: state, UUID: uuid, Seqno: seqno}}
}

func gonePower(name string) part.Member { return part.Member{Name: name} }

func holds(uuid string, seqno int64) folder {
	return folder{looked: true, made: true, uuid: uuid, seqno: seqno}
}

var nothing = folder{looked: true, seqno: -1}

func TestDecide(t *testing.T) {
	const empty, down, joining, synced = part.DatabaseEmpty, part.DatabaseDown, part.DatabaseJoining, part.DatabaseSynced
	well := health{answers: true, ready: true, connected: true, inPrimary: true, state: stateSynced, uuid: historyA, seqno: 9}
	cut := health{answers: true, connected: true, uuid: historyA, seqno: 9}
	role := func(bootstrap, uuid string) part.DatabaseRole {
		return part.DatabaseRole{Bootstrap: bootstrap, UUID: uuid}
	}
	// started is a role in which server was agreed to start the group at seqno.
	started := func(server, uuid string, seqno int64) part.DatabaseRole {
		r := role(server, uuid)
		r.Starts = []part.DatabaseStart{{ID: "one", Server: server, Seqno: seqno}}
		return r
	}
	stopped := func(self string, r part.DatabaseRole, f folder, others ...part.Member) view {
		own := member(self, down, f.uuid, f.seqno)
		return view{self: self, quorum: true, role: r, folder: f, members: append([]part.Member{own}, others...)}
	}
	running := func(self string, r part.DatabaseRole, h health, others ...part.Member) view {
		v := stopped(self, r, folder{}, others...)
		v.running, v.health = true, h
		return v
	}
	with := func(v view, f func(*view)) view { f(&v); return v }
	free := func(mib uint64) func(*view) {
		return func(v *view) { v.disk = disk{known: true, free: mib << 20, path: "/data"} }
	}
	for _, c := range []struct {
		name string
		v    view
		want kind
		says string // in the reason
	}{
		{"folder not read yet", stopped("s1", role("", ""), folder{}), read, ""},
		{"folder unreadable", stopped("s1", role("", ""), folder{looked: true, err: errors.New("broken")}), refuse, "broken"},
		{"folder unreadable, a while ago", with(stopped("s1", role("", ""), folder{looked: true, err: errors.New("broken")}), func(v *view) { v.again = true }), read, ""},
		{"half of a copy", stopped("s1", role("s1", historyA), folder{looked: true, partial: true}, member("s2", synced, historyA, 0)), wipe, ""},

		// First bring-up.
		{"all empty, lowest name", stopped("s1", role("", ""), nothing, member("s2", empty, "", -1), member("s3", empty, "", -1)), agree, ""},
		{"all empty, agreed", stopped("s1", started("s1", "", -1), nothing, member("s2", empty, "", -1), member("s3", empty, "", -1)), alone, ""},
		{"all empty, not the lowest", stopped("s2", role("", ""), nothing, member("s1", empty, "", -1), member("s3", empty, "", -1)), wait, "waiting for s1"},
		{"all empty, one not heard", stopped("s1", role("", ""), nothing, member("s2", empty, "", -1), member("s3", "", "", 0)), wait, "s3"},
		{"all empty, one gone", stopped("s1", role("", ""), nothing, member("s2", empty, "", -1), gonePower("s3")), wait, "s3, which may hold newer data"},
		{"all empty, no quorum", with(stopped("s1", role("s1", ""), nothing, member("s2", empty, "", -1), member("s3", empty, "", -1)), func(v *view) { v.quorum = false }), wait, "quorum"},
		{"the first died before its history was agreed", stopped("s1", role("s1", ""), holds(historyA, 3), member("s2", empty, "", -1), member("s3", empty, "", -1)), agree, ""},
		{"another is the first already", stopped("s2", role("s1", ""), nothing, member("s1", joining, "", 0), member("s3", empty, "", -1)), wait, "s1, which is starting"},
		{"first synced, empty ones join", stopped("s2", role("s1", historyA), nothing, member("s1", synced, historyA, 0), member("s3", empty, "", -1)), join, ""},
		{"one at a time", stopped("s3", role("s1", historyA), nothing, member("s1", synced, historyA, 0), member("s2", empty, "", -1)), wait, "s2, which joins first"},
		{"one at a time, while another joins", stopped("s2", role("s1", historyA), nothing, member("s1", synced, historyA, 0), member("s3", joining, "", 0)), wait, "s3, which joins first"},
		{"not for ever", with(stopped("s3", role("s1", historyA), nothing, member("s1", synced, historyA, 0), member("s2", joining, "", 0)), func(v *view) { v.queued = time.Minute }), join, ""},
		{"first synced, history not agreed yet", stopped("s2", role("s1", ""), nothing, member("s1", synced, historyA, 0), member("s3", empty, "", -1)), join, ""},

		// A node comes back.
		{"rejoin", stopped("s3", role("s1", historyA), holds(historyA, 5), member("s1", synced, historyA, 0), member("s2", synced, historyA, 0)), join, ""},
		{"rejoin while one is gone", stopped("s3", role("s1", historyA), holds(historyA, 5), gonePower("s1"), member("s2", synced, historyA, 0)), join, ""},
		{"rejoin without quorum", with(stopped("s3", role("s1", historyA), holds(historyA, 5), gonePower("s1"), member("s2", synced, historyA, 0)), func(v *view) { v.quorum = false }), wait, "waiting for s1, which may hold newer data"},
		{"other history than the agreed one", stopped("s3", role("s1", historyA), holds(historyB, 50), member("s1", synced, historyA, 0), member("s2", synced, historyA, 0)), refuse, "move it away"},
		{"other history than the peer's", stopped("s3", role("s1", ""), holds(historyB, 50), member("s1", synced, historyA, 0), member("s2", empty, "", -1)), refuse, historyB},
		{"replaced disk", stopped("s3", role("s1", historyA), nothing, member("s1", synced, historyA, 0), member("s2", synced, historyA, 0)), join, ""},

		// All are down.
		{"highest position", stopped("s2", role("s1", historyA), holds(historyA, 9), member("s1", down, historyA, 7), member("s3", down, historyA, 8)), agree, ""},
		{"highest position, agreed", stopped("s2", started("s2", historyA, 9), holds(historyA, 9), member("s1", down, historyA, 7), member("s3", down, historyA, 8)), alone, ""},
		{"not the highest, though agreed before", stopped("s1", role("s1", historyA), holds(historyA, 7), member("s2", down, historyA, 8), member("s3", down, historyA, 9)), wait, "waiting for s3, which starts first"},
		{"tie goes to the lowest name", stopped("s1", started("s1", historyA, 9), holds(historyA, 9), member("s2", down, historyA, 9), member("s3", down, historyA, 9)), alone, ""},
		{"tie, seen from the other", stopped("s2", role("s1", historyA), holds(historyA, 9), member("s1", down, historyA, 9), member("s3", down, historyA, 9)), wait, "s1"},
		{"own folder counts, not the own report", with(stopped("s2", role("s2", historyA), holds(historyA, 9), member("s1", down, historyA, 9), member("s3", down, historyA, 8)), func(v *view) { v.members[0].Database.Seqno = 99 }), wait, "s1"},
		{"an empty one does not win by its name", stopped("s1", role("s2", historyA), nothing, member("s2", down, historyA, 0), member("s3", down, historyA, 0)), wait, "s2"},
		{"one of three gone", stopped("s1", role("s1", historyA), holds(historyA, 9), member("s2", down, historyA, 8), gonePower("s3")), wait, "waiting for s3, which may hold newer data"},
		{"one of three unreadable", stopped("s1", role("s1", historyA), holds(historyA, 9), member("s2", down, "", -1), member("s3", down, historyA, 8)), wait, "s2, whose data folder is unreadable"},
		{"no quorum", with(stopped("s1", role("s1", historyA), holds(historyA, 9), member("s2", down, historyA, 8), member("s3", down, historyA, 8)), func(v *view) { v.quorum = false }), wait, "quorum"},
		{"different histories", stopped("s1", role("", ""), holds(historyA, 9), member("s2", down, historyB, 8), member("s3", empty, "", -1)), refuse, "different histories"},
		{"not the agreed history", stopped("s1", role("s1", historyB), holds(historyA, 9), member("s2", down, historyA, 8), member("s3", empty, "", -1)), refuse, historyB},
		{"another server has another history", stopped("s1", role("s1", historyA), holds(historyA, 9), member("s2", down, historyB, 8), member("s3", empty, "", -1)), refuse, "s2 has"},
		{"all lost", stopped("s1", role("s1", historyA), nothing, member("s2", empty, "", -1), member("s3", empty, "", -1)), refuse, "restore a backup"},
		{"agreement lost, data kept", stopped("s3", role("", ""), holds(historyA, 9), member("s1", down, historyA, 8), member("s2", down, historyA, 8)), agree, ""},

		// The disk.
		{"disk is full", with(running("s1", role("s2", historyA), well, member("s2", synced, historyA, 0)), free(127)), stop, "disk is full: 112 MiB left on /data; free some space"},
		{"disk is nearly full", with(running("s1", role("s2", historyA), well, member("s2", synced, historyA, 0)), free(128)), wait, ""},
		{"disk is full, nobody else serves", with(running("s1", role("s2", historyA), well, member("s2", joining, historyA, 0)), free(1)), wait, ""},
		{"disk is full, nobody else is heard", with(running("s1", role("s2", historyA), well, member("s2", synced, historyA, 0)), func(v *view) { free(1)(v); v.quorum = false }), wait, ""},
		{"writer's disk is full, a moment ago", with(running("s1", role("s1", historyA), well, member("s2", synced, historyA, 0)), func(v *view) { free(100)(v); v.role.Writer = "s1" }), wait, ""},
		{"writer's disk is full", with(running("s1", role("s1", historyA), well, member("s2", synced, historyA, 0)), func(v *view) { free(100)(v); v.role.Writer, v.short = "s1", 4*time.Second }), stop, "disk is full"},
		{"joiner's disk is full", with(running("s1", role("s2", historyA), health{}, member("s2", synced, historyA, 0)), free(9)), stop, "9 MiB"},
		{"full, not read yet", with(stopped("s1", role("s2", historyA), folder{}, member("s2", synced, historyA, 0)), free(31)), refuse, "disk is full"},
		{"nearly full, not read yet", with(stopped("s1", role("s2", historyA), folder{}, member("s2", synced, historyA, 0)), free(32)), read, ""},
		{"no room to start again", with(stopped("s1", role("s2", historyA), holds(historyA, 5), member("s2", synced, historyA, 0)), free(255)), refuse, "disk is full: 240 MiB left"},
		{"room to start again", with(stopped("s1", role("s2", historyA), holds(historyA, 5), member("s2", synced, historyA, 0)), free(256)), join, ""},
		{"half of a copy fills the disk", with(stopped("s1", role("s2", historyA), folder{looked: true, partial: true}, member("s2", synced, historyA, 0)), free(33)), wipe, ""},
		{"little room, but the first", with(stopped("s1", started("s1", historyA, 9), holds(historyA, 9), member("s2", down, historyA, 8), member("s3", down, historyA, 8)), free(130)), alone, ""},

		// Running.
		{"joins a group of before the power failed", with(running("s1", role("s2", historyA), health{}, member("s2", down, historyA, 8), member("s3", down, historyA, 8)), func(v *view) { v.lonely = 1100 * time.Millisecond }), stop, "no group to join"},
		{"joins, the others start too", with(running("s1", role("s2", historyA), health{}, member("s2", joining, historyA, 8), member("s3", down, historyA, 8)), func(v *view) { v.lonely = 1100 * time.Millisecond }), wait, "waiting for s2"},
		{"well", running("s1", role("s1", historyA), well), wait, ""},
		{"first is synced: agree on its history", running("s1", role("s1", ""), well), agree, ""},
		{"a joiner does not agree on a history", running("s2", role("s1", ""), well), wait, ""},
		{"runs with another history", running("s1", role("s1", historyB), well), refuse, "another history"},
		{"catching up", running("s1", role("s1", historyA), health{answers: true, connected: true, inPrimary: true, state: stateJoined, uuid: historyA}), wait, "catching up"},
		{"cut off, the others go on", running("s1", role("s1", historyA), cut, member("s2", synced, historyA, 0), member("s3", synced, historyA, 0)), wait, "cut off from the group"},
		{"cut off, and the cluster too", with(running("s1", role("s1", historyA), health{answers: true, uuid: historyA, names: []string{"s1"}}, member("s2", synced, historyA, 0), member("s3", synced, historyA, 0)), func(v *view) { v.quorum = false }), wait, "cut off: no other server is reachable"},
		{"joiner gets nowhere", with(running("s1", role("s1", historyA), health{}, member("s2", synced, historyA, 0)), func(v *view) { v.nowhere = 21 * time.Second }), stop, "anew"},
		{"joiner has got nowhere for a moment", with(running("s1", role("s1", historyA), health{}, member("s2", synced, historyA, 0)), func(v *view) { v.nowhere = 19 * time.Second }), wait, "joining"},
		{"joiner gets nowhere, and so does another", with(running("s1", role("s1", historyA), health{}, member("s2", synced, historyA, 0), member("s3", joining, historyA, 0)), func(v *view) { v.nowhere = 21 * time.Second }), wait, "joining"},
		{"joiner gets nowhere for long, and so does another", with(running("s1", role("s1", historyA), health{}, member("s2", synced, historyA, 0), member("s3", joining, historyA, 0)), func(v *view) { v.nowhere = 61 * time.Second }), stop, "anew"},
		{"joiner without quorum is not stopped", with(running("s1", role("s1", historyA), health{}, member("s2", synced, historyA, 0)), func(v *view) { v.quorum, v.nowhere, v.lonely = false, time.Hour, time.Hour }), wait, "quorum"},
		{"fell behind", with(running("s1", role("s2", historyA), well, member("s2", synced, historyA, 0)), func(v *view) { v.behind, v.health.queue = time.Minute, 345 }), wait, "345 transactions"},
		{"out of the group for long", with(running("s1", role("s1", historyA), health{answers: true, uuid: historyA}, member("s2", synced, historyA, 0)), func(v *view) { v.apart = time.Minute }), reconnect, ""},
		{"starting, the first of all, is never stopped", with(running("s1", role("s1", historyA), health{}, member("s2", down, historyA, 8)), func(v *view) { v.first, v.lonely = true, time.Hour }), wait, ""},
		{"joiner whose group is gone", with(running("s2", role("s1", historyA), health{}, member("s1", down, historyA, 8)), func(v *view) { v.lonely = time.Minute }), stop, ""},
		{"joiner whose group was here a moment ago", running("s2", role("s1", historyA), health{}, member("s1", down, historyA, 8)), wait, ""},
		{"survivor, two ended: agree", running("s1", role("s2", historyA), cut, member("s2", down, historyA, 9), member("s3", down, historyA, 8)), agree, ""},
		{"survivor, two ended, agreed", running("s1", started("s1", historyA, 9), cut, member("s2", down, historyA, 9), member("s3", down, historyA, 8)), rescue, ""},
		{"survivor, one ended, one gone", running("s1", role("s1", historyA), cut, member("s2", down, historyA, 9), gonePower("s3")), wait, "s3, which may hold newer data"},
		{"survivor, another survives", running("s1", role("s1", historyA), cut, member("s2", down, historyA, 9), member("s3", joining, historyA, 0)), wait, "s3, which is starting"},
		{"survivor, another survives, for long", with(running("s1", role("s1", historyA), cut, member("s2", down, historyA, 9), member("s3", joining, historyA, 0)), func(v *view) { v.first, v.lonely = true, time.Minute }), stop, "s3, which is starting, and waits for this one"},
		{"survivor, another survives, for long, one gone", with(running("s1", role("s1", historyA), cut, gonePower("s2"), member("s3", joining, historyA, 0)), func(v *view) { v.lonely = time.Minute }), wait, "s2, which may hold newer data"},
		{"survivor, another survives, for long, without quorum", with(running("s1", role("s1", historyA), cut, member("s2", down, historyA, 9), member("s3", joining, historyA, 0)), func(v *view) { v.quorum, v.lonely = false, time.Minute }), wait, "quorum"},
		{"survivor, another gets a copy for long", with(running("s1", role("s1", historyA), well, member("s2", down, historyA, 9), member("s3", joining, historyA, 0)), func(v *view) { v.lonely = time.Minute }), wait, ""},
		{"survivor, another holds more", running("s1", role("s1", historyA), cut, member("s2", down, historyA, 10), member("s3", down, historyA, 8)), stop, "s2 holds newer data"},
		{"survivor without quorum", with(running("s1", role("s1", historyA), cut, member("s2", down, historyA, 9), member("s3", down, historyA, 8)), func(v *view) { v.quorum = false }), wait, "quorum"},
		{"survivor of an unknown history", running("s1", role("s1", historyB), cut, member("s2", empty, "", -1), member("s3", empty, "", -1)), wait, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := decide(c.v)
			if got.kind != c.want || !strings.Contains(got.why, c.says) {
				t.Errorf("got %v (%s), want %v (…%s…)", got.kind, got.why, c.want, c.says)
			}
		})
	}
}

// TestOneStartsAlone tries every combination of what three folders hold and
// asks all three supervisors: at most one may start alone, and none may while
// another holds more.
func TestOneStartsAlone(t *testing.T) {
	contents := []folder{nothing, holds(historyA, 3), holds(historyA, 4), holds(historyB, 4)}
	names := []string{"s1", "s2", "s3"}
	for _, agreed := range []string{"", historyA} {
		for i := range 64 {
			fs := []folder{contents[i%4], contents[i/4%4], contents[i/16]}
			var starts []int
			for self := range fs {
				v := view{self: names[self], quorum: true, folder: fs[self], role: part.DatabaseRole{UUID: agreed}}
				for n, f := range fs {
					state := part.DatabaseDown
					if f.uuid == "" {
						state = part.DatabaseEmpty
					}
					v.members = append(v.members, member(names[n], state, f.uuid, f.seqno))
				}
				if k := decide(v).kind; k == agree || k == alone {
					starts = append(starts, self)
				}
			}
			if len(starts) > 1 {
				t.Errorf("%+v, agreed %q: %v start", fs, agreed, starts)
			}
			for _, s := range starts {
				for _, f := range fs {
					if f.seqno > fs[s].seqno {
						t.Errorf("%+v, agreed %q: %d starts, though another holds more", fs, agreed, s)
					}
				}
			}
		}
	}
}

func TestElect(t *testing.T) {
	well := health{answers: true, ready: true, connected: true, inPrimary: true, state: stateSynced, uuid: historyA, names: []string{"s1", "s2", "s3"}}
	group := func(names ...string) health { h := well; h.names = names; return h }
	copying := well
	copying.state = stateDonor
	synced := func(name string) part.Member { return member(name, part.DatabaseSynced, historyA, 0) }
	joining := func(name string) part.Member { return member(name, part.DatabaseJoining, historyA, 0) }
	dead := func(name string) part.Member { return member(name, part.DatabaseDown, "", -1) }
	silent := func(name string) part.Member { m := synced(name); m.Alive = false; return m }
	for _, c := range []struct {
		name    string
		self    string
		writer  string
		running bool
		died    bool
		health  health
		members []part.Member
		want    string
		after   time.Duration
	}{
		{"first of all", "s1", "", true, false, group("s1"), []part.Member{joining("s1"), dead("s2"), dead("s3")}, "s1", 0},
		{"nobody is synced", "s1", "", true, false, health{}, []part.Member{joining("s1"), joining("s2"), joining("s3")}, "", 0},
		{"writer is well", "s1", "s3", true, false, well, []part.Member{synced("s1"), synced("s2"), synced("s3")}, "", 0},
		{"no fail-back", "s1", "s2", true, false, well, []part.Member{synced("s1"), synced("s2"), synced("s3")}, "", 0},
		{"own mariadbd died", "s1", "s1", false, true, health{}, []part.Member{synced("s1"), synced("s2"), synced("s3")}, "s2", 0},
		{"own mariadbd died, not the writer", "s1", "s2", false, true, health{}, []part.Member{synced("s1"), synced("s2"), synced("s3")}, "", 0},
		{"writer says it died, lowest proposes", "s2", "s1", true, false, well, []part.Member{dead("s1"), synced("s2"), synced("s3")}, "s2", 0},
		{"writer says it died, next in line waits", "s3", "s1", true, false, well, []part.Member{dead("s1"), synced("s2"), synced("s3")}, "s2", stagger},
		{"writer left the group, though it said synced", "s2", "s1", true, false, group("s2", "s3"), []part.Member{synced("s1"), synced("s2"), synced("s3")}, "s2", 0},
		{"both others left my view of the group", "s1", "s2", true, false, group("s1"), []part.Member{synced("s1"), synced("s2"), synced("s3")}, "s1", 0},
		{"cut off myself: my view has no word", "s1", "s2", true, false, health{answers: true, names: []string{"s1"}, uuid: historyA}, []part.Member{joining("s1"), synced("s2"), synced("s3")}, "", 0},
		{"writer's lease ended", "s2", "s1", true, false, well, []part.Member{silent("s1"), synced("s2"), synced("s3")}, "s2", 0},
		{"writer is joining, back in the group", "s2", "s1", true, false, well, []part.Member{joining("s1"), synced("s2"), synced("s3")}, "s2", grace},
		{"writer is joining, not in the group", "s2", "s1", true, false, group("s2", "s3"), []part.Member{joining("s1"), synced("s2"), synced("s3")}, "s2", 0},
		{"writer with another history", "s2", "s1", true, false, well, []part.Member{member("s1", part.DatabaseSynced, historyB, 0), synced("s2"), synced("s3")}, "s2", 0},
		{"own report is older than own health", "s2", "s1", true, false, well, []part.Member{dead("s1"), joining("s2"), joining("s3")}, "s2", 0},
		{"writer gives a copy: stays", "s1", "s1", true, false, copying, []part.Member{synced("s1"), synced("s2"), joining("s3")}, "", 0},
		{"donor is not elected while another is synced", "s2", "s1", true, false, copying, []part.Member{dead("s1"), synced("s2"), synced("s3")}, "", 0},
		{"donor is elected if nobody else is synced", "s2", "s1", true, false, copying, []part.Member{dead("s1"), synced("s2"), joining("s3")}, "s2", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := view{self: c.self, quorum: true, running: c.running, died: c.died, health: c.health, members: c.members}
			v.role = part.DatabaseRole{Writer: c.writer, Epoch: 4, UUID: historyA}
			got, after := ballot{v}.elect()
			if got != c.want || after != c.after {
				t.Errorf("got %q after %v, want %q after %v", got, after, c.want, c.after)
			}
		})
	}
}

// TestServes tells when a node that mariadbd calls synced counts as such.
func TestServes(t *testing.T) {
	well := health{answers: true, ready: true, connected: true, inPrimary: true, state: stateSynced, uuid: historyA}
	full := disk{known: true, free: 1 << 20}
	for _, c := range []struct {
		name   string
		v      view
		other  bool
		want   bool
		quorum bool
	}{
		{"well", view{}, true, true, true},
		{"fell behind", view{behind: 4 * time.Second}, true, false, true},
		{"behind for a moment", view{behind: 2 * time.Second}, true, true, true},
		{"fell behind, alone", view{behind: time.Hour}, false, true, true},
		{"fell behind, the others' word is stale", view{behind: time.Hour}, true, true, false},
		{"disk is full", view{disk: full}, true, false, true},
		{"disk is full, alone", view{disk: full}, false, true, true},
		{"was frozen a moment ago", view{waking: true}, true, false, true},
		{"other history", view{role: part.DatabaseRole{UUID: historyB}}, true, false, true},
	} {
		c.v.self, c.v.running, c.v.health, c.v.quorum = "s1", true, well, c.quorum
		if c.other {
			c.v.members = []part.Member{member("s2", part.DatabaseSynced, historyA, 0)}
		}
		if got := c.v.serves(); got != c.want {
			t.Errorf("%s: got %t, want %t", c.name, got, c.want)
		}
	}
}
