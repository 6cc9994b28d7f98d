package database

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"trivet/internal/part"
)

// past is a role whose group was started by s1 at 5, and again at 100.
func past() part.DatabaseRole {
	return part.DatabaseRole{Writer: "s1", Epoch: 7, Bootstrap: "s1", UUID: historyA, Starts: []part.DatabaseStart{
		{ID: "one", Server: "s1", Seqno: 5}, {ID: "two", Server: "s1", Seqno: 100},
	}}
}

// marked is a server that is down and whose folder has that mark.
func marked(name, start string, seqno int64) part.Member {
	m := member(name, part.DatabaseDown, historyA, seqno)
	m.Database.Start = start
	return m
}

func old(m part.Member) part.Member { m.Database.Old = true; return m }

func TestDecideLineage(t *testing.T) {
	const empty, synced = part.DatabaseEmpty, part.DatabaseSynced
	record := part.DatabaseRecord{UUID: historyA, Committed: 200, Epoch: 7, Launches: map[string]int64{"s1": 4, "s2": 4, "s3": 4}}
	// stopped is s1 after a full stop, with the others as they say.
	stopped := func(seqno int64, others ...part.Member) view {
		return view{
			self: "s1", quorum: true, role: past(), record: record, folder: holds(historyA, seqno), mark: mark{"two", 4},
			members: append([]part.Member{marked("s1", "two", seqno)}, others...), stood: -1,
		}
	}
	with := func(v view, f func(*view)) view { f(&v); return v }
	gone := func(v *view) { v.missing = missingLimit }
	forced := func(server string, lose ...string) func(*view) {
		return func(v *view) { v.role.Force = part.DatabaseForce{Server: server, Lose: lose} }
	}
	agreed := func(seqno int64, forced bool, lost ...string) func(*view) {
		return func(v *view) {
			v.role.Starts = append(v.role.Starts, part.DatabaseStart{ID: "three", Server: "s1", Seqno: seqno, Forced: forced, Lost: lost})
		}
	}
	for _, c := range []struct {
		name string
		v    view
		want kind
		says string
	}{
		// What was committed is not given up.
		{"all hold what was committed", stopped(210, marked("s2", "two", 205), marked("s3", "two", 200)), agree, ""},
		{"exactly that much", stopped(200, marked("s2", "two", 190), marked("s3", "two", 190)), agree, ""},
		{"the most lacks some", stopped(199, marked("s2", "two", 150), marked("s3", "two", 150)), refuse, "s1 holds most (199), but 1 transaction more had been committed"},
		{"only an old copy is left", with(stopped(60, member("s2", empty, "", -1), member("s3", empty, "", -1)), func(v *view) { v.mark = mark{"one", 2} }), refuse, "no server holds data that can be followed"},
		{"only an old copy of the same run is left", stopped(150, member("s2", empty, "", -1), member("s3", empty, "", -1)), refuse, "50 transactions more had been committed"},
		{"what an operator gave up since", with(stopped(150, marked("s2", "three", 150), marked("s3", "three", 150)), func(v *view) { agreed(100, true)(v); v.record.Start, v.mark.Start = "two", "three" }), agree, ""},
		{"what was committed after that", with(stopped(150, marked("s2", "three", 150), marked("s3", "three", 150)), func(v *view) { agreed(100, true)(v); v.record.Start, v.mark.Start = "three", "three" }), refuse, "50 transactions more"},
		{"what was committed in another history", with(stopped(10, marked("s2", "two", 9), marked("s3", "two", 9)), func(v *view) { v.record.UUID = historyB }), agree, ""},

		// Old copies are not followed, however much they hold.
		{"old copy holds most", stopped(210, old(marked("s2", "two", 999)), marked("s3", "two", 200)), agree, ""},
		{"own folder is an old copy that holds most", with(stopped(999, marked("s2", "two", 210), marked("s3", "two", 200)), func(v *view) { v.mark.Launch = 3 }), wait, "waiting for s2"},
		{"folder of another group holds most", stopped(210, marked("s2", "other", 999), marked("s3", "two", 200)), agree, ""},
		{"a copy that was never synced holds most", stopped(210, marked("s2", "", 211), marked("s3", "two", 200)), agree, ""},
		{"left behind by a former start", stopped(210, marked("s2", "one", 999), marked("s3", "two", 200)), agree, ""},
		{"was away since before a start", stopped(210, marked("s2", "one", 90), marked("s3", "two", 200)), agree, ""},

		// How a node joins that has something.
		{"rejoins by what it lacks", stopped(150, member("s2", synced, historyA, 0)), join, ""},
		{"the group was started in a way that is not agreed yet", stopped(150, func() part.Member { m := member("s2", synced, historyA, 0); m.Database.Start = "unheard"; return m }()), wait, "agreement on how s2 was started"},
		{"old copy is replaced", with(stopped(150, member("s2", synced, historyA, 0)), func(v *view) { v.mark.Launch = 3 }), join, "full copy: it is an old copy"},
		{"prefix of the last start", with(stopped(100, member("s2", synced, historyA, 0)), func(v *view) { v.mark.Start = "one" }), join, ""},
		{"beyond the last start", with(stopped(101, member("s2", synced, historyA, 0)), func(v *view) { v.mark.Start = "one" }), join, "full copy: the group went on without 1 transaction that it holds when s1 started it alone"},
		{"of another group", with(stopped(3, member("s2", synced, historyA, 0)), func(v *view) { v.mark.Start = "other" }), join, "full copy: it comes from another group"},
		{"unmarked, from before the first start", with(stopped(5, member("s2", synced, historyA, 0)), func(v *view) { v.mark.Start = "" }), join, ""},
		{"another history that was not given up", with(stopped(150, member("s2", synced, historyB, 0)), func(v *view) { v.role.UUID = historyB }), refuse, "move it away"},
		{"another history that was given up", with(stopped(150, member("s2", synced, historyB, 0)), func(v *view) { agreed(3, true, "s1")(v); v.role.UUID = historyB }), join, "an operator gave up what it held"},

		// Two without the third.
		{"third gone, the writer is here", with(stopped(210, marked("s2", "two", 205), gonePower("s3")), gone), agree, ""},
		{"third gone a moment ago", stopped(210, marked("s2", "two", 205), gonePower("s3")), wait, "s3, which may hold newer data"},
		{"third gone, it was the writer", with(stopped(210, marked("s2", "two", 205), gonePower("s3")), func(v *view) { gone(v); v.role.Writer = "s3" }), wait, "s3, which may hold newer data"},
		{"third gone, the writer is new", with(stopped(210, marked("s2", "two", 205), gonePower("s3")), func(v *view) { gone(v); v.role.Epoch = 8 }), wait, "s3, which may hold newer data"},
		{"third gone, the writer lacks some", with(stopped(199, marked("s2", "two", 205), gonePower("s3")), gone), wait, "s3, which may hold newer data"},
		{"third gone, the writer's folder is an old copy", with(stopped(210, marked("s2", "two", 205), gonePower("s3")), func(v *view) { gone(v); v.mark.Launch = 3 }), wait, "s3, which may hold newer data"},
		{"third gone, the second has not spoken", with(stopped(210, member("s2", "", "", 0), gonePower("s3")), gone), wait, "s2 to say"},
		{"two gone", with(stopped(210, gonePower("s2"), gonePower("s3")), func(v *view) { gone(v); v.quorum = false }), wait, "quorum"},

		// An operator's word.
		{"an operator chose this one", with(stopped(150, gonePower("s2"), gonePower("s3")), forced("s1", "s2", "s3")), agree, ""},
		{"an operator chose this one, agreed", with(stopped(150, gonePower("s2"), gonePower("s3")), agreed(150, true, "s2", "s3")), alone, ""},
		{"an operator's choice that was carried out", with(stopped(160, gonePower("s2"), marked("s3", "three", 150)), func(v *view) { agreed(150, true, "s2")(v); v.mark.Start = "three" }), wait, "s2"},
		{"an operator chose another", with(stopped(210, marked("s2", "two", 205), marked("s3", "two", 200)), forced("s2", "s1")), wait, "s2, which an operator chose"},
		{"an operator chose an old copy", with(stopped(60, gonePower("s2"), gonePower("s3")), func(v *view) { forced("s1", "s2")(v); v.mark.Launch = 1 }), agree, ""},
		{"an operator chose an empty one", with(stopped(210, gonePower("s2"), gonePower("s3")), func(v *view) { forced("s1", "s2")(v); v.folder = nothing }), refuse, "holds no history"},
		{"an operator chose one, but a group is there", with(stopped(150, member("s2", synced, historyA, 0)), forced("s1", "s2")), join, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := decide(c.v)
			if got.kind != c.want || !strings.Contains(got.why, c.says) {
				t.Errorf("got %v (%s), want %v (…%s…)", got.kind, got.why, c.want, c.says)
			}
			if full := strings.Contains(c.says, "full copy") || strings.Contains(c.says, "gave up"); got.kind == join && got.full != full {
				t.Errorf("full copy: got %v, want %v", got.full, full)
			}
		})
	}
}

func TestDecideLineageRunning(t *testing.T) {
	apart := health{answers: true, connected: true, uuid: historyA, seqno: 110}
	well := health{answers: true, ready: true, connected: true, inPrimary: true, state: stateSynced, uuid: historyA, seqno: 300}
	running := func(h health, f func(*view)) view {
		v := view{
			self: "s1", quorum: true, running: true, health: h, role: past(), mark: mark{"two", 4}, stood: h.seqno,
			members: []part.Member{member("s1", part.DatabaseJoining, historyA, 0), marked("s2", "two", 90), gonePower("s3")},
		}
		f(&v)
		return v
	}
	for _, c := range []struct {
		name string
		v    view
		want kind
		says string
	}{
		{"survivor waits for the third", running(apart, func(*view) {}), wait, "s3"},
		{"survivor is the writer, the third is gone for long", running(apart, func(v *view) {
			v.missing, v.record = missingLimit, part.DatabaseRecord{UUID: historyA, Committed: 110, Epoch: 7}
			v.members[0] = marked("s1", "two", 110)
			v.members[0].Database.State = part.DatabaseJoining
		}), agree, ""},
		{"survivor lacks what was committed", running(apart, func(v *view) {
			v.members[2], v.record = marked("s3", "two", 90), part.DatabaseRecord{UUID: historyA, Committed: 111}
		}), stop, "lacks 1 transaction"},
		{"survivor goes on beside an old copy that holds more", running(apart, func(v *view) { v.members[2] = old(marked("s3", "two", 500)) }), agree, ""},
		{"survivor ends beside one that holds more", running(apart, func(v *view) { v.members[2] = marked("s3", "two", 500) }), stop, "s3 holds newer data"},
		{"an operator chose the survivor", running(apart, func(v *view) { v.role.Force = part.DatabaseForce{Server: "s1", Lose: []string{"s3"}} }), agree, ""},
		{"an operator chose the survivor, agreed", running(apart, func(v *view) {
			v.role.Starts = append(v.role.Starts, part.DatabaseStart{ID: "three", Server: "s1", Seqno: 110, Forced: true})
		}), rescue, "an operator chose it"},
		{"the group went on without its last ones", running(apart, func(v *view) {
			v.role.Starts = append(v.role.Starts, part.DatabaseStart{ID: "three", Server: "s2", Seqno: 109, Forced: true})
		}), stop, "without 1 transaction that it holds when s2 started it alone"},
		{"that, found out when it is back in the group", running(well, func(v *view) {
			v.stood = 110
			v.role.Starts = append(v.role.Starts, part.DatabaseStart{ID: "three", Server: "s2", Seqno: 109, Forced: true})
		}), stop, "full copy"},
		{"it took part in a start of its own", running(well, func(v *view) { v.mark.Start, v.foreign, v.stood = "own", time.Minute, -1 }), stop, "a start that was not agreed"},
		{"that, a moment ago", running(well, func(v *view) { v.mark.Start, v.foreign, v.stood = "own", time.Second, 110 }), wait, ""},
		{"the group was started where it stood", running(well, func(v *view) {
			v.stood = 110
			v.role.Starts = append(v.role.Starts, part.DatabaseStart{ID: "three", Server: "s2", Seqno: 110})
		}), wait, ""},
		{"the group is well: an operator's word is not needed any more", running(well, func(v *view) { v.stood, v.role.Force.Server = -1, "s2" }), agree, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := decide(c.v)
			if got.kind != c.want || !strings.Contains(got.why, c.says) {
				t.Errorf("got %v (%s), want %v (…%s…)", got.kind, got.why, c.want, c.says)
			}
		})
	}
}

// What is agreed for a start says from where, and for an operator's also what was given up.
func TestChoose(t *testing.T) {
	v := view{self: "s2", role: past()}
	v.role.Force = part.DatabaseForce{Server: "s2", Lose: []string{"s3"}}
	got := v.choose(historyB, 42, true).next
	want := part.DatabaseStart{Server: "s2", Seqno: 42, Forced: true, Lost: []string{"s3"}}
	if last := got.LastStart(); fmt.Sprint(last) != fmt.Sprint(want) {
		t.Errorf("start: got %+v, want %+v", last, want)
	}
	if got.Bootstrap != "s2" || got.UUID != historyB || got.Force.Server != "" || len(v.role.Starts) != 2 {
		t.Errorf("got %+v, of %+v", got, v.role)
	}
	for range keptStarts {
		v.role = v.choose(historyA, 1, false).next
	}
	if n := len(v.role.Starts); n != keptStarts {
		t.Errorf("%d starts are kept, want %d", n, keptStarts)
	}
}

// TestOldCopyNeverStarts tries all servers with all kinds of folders: none that
// is to be doubted starts, nor one that lacks what was committed.
func TestOldCopyNeverStarts(t *testing.T) {
	type content struct {
		start string
		seqno int64
		old   bool
	}
	contents := []content{{"two", 200, false}, {"two", 210, false}, {"two", 150, false}, {"one", 90, false}, {"one", 999, false}, {"two", 999, true}, {"", 999, false}, {"other", 999, false}}
	record := part.DatabaseRecord{UUID: historyA, Committed: 200, Epoch: 7, Launches: map[string]int64{"s1": 4, "s2": 4, "s3": 4}}
	names := []string{"s1", "s2", "s3"}
	n := len(contents)
	for i := range n * n * n {
		cs := []content{contents[i%n], contents[i/n%n], contents[i/n/n]}
		var members []part.Member
		for s, c := range cs {
			m := marked(names[s], c.start, c.seqno)
			m.Database.Old = c.old
			members = append(members, m)
		}
		starts := 0
		for s, c := range cs {
			m := mark{c.start, 4}
			if c.old {
				m.Launch = 3
			}
			v := view{self: names[s], quorum: true, role: past(), record: record, folder: holds(historyA, c.seqno), mark: m, members: members}
			if decide(v).kind != agree {
				continue
			}
			starts++
			if c.start != "two" || c.old || c.seqno < 200 {
				t.Errorf("%+v: %s starts", cs, names[s])
			}
		}
		good := slices.ContainsFunc(cs, func(c content) bool { return c.start == "two" && !c.old && c.seqno >= 200 })
		if starts > 1 || good != (starts == 1) {
			t.Errorf("%+v: %d start", cs, starts)
		}
	}
}

func TestMark(t *testing.T) {
	dir := t.TempDir()
	if m, err := readMark(dir); err != nil || m != (mark{}) {
		t.Errorf("no mark: got %+v, %v", m, err)
	}
	want := mark{"two", 3}
	if err := want.write(dir); err != nil {
		t.Fatal(err)
	}
	if m, err := readMark(dir); err != nil || m != want {
		t.Errorf("got %+v, %v, want %+v", m, err, want)
	}
	if err := os.WriteFile(filepath.Join(dir, markFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readMark(dir); err == nil {
		t.Error("a damaged mark was read")
	}
}

// The position that is remembered is one that was reached a while ago, by a
// writer that had nothing left to apply; an idle one is remembered once.
func TestKeepPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var record part.DatabaseRecord
		changes := 0
		d := &Database{log: slog.New(slog.DiscardHandler), cfg: Config{Remember: func(_ context.Context, change func(*part.DatabaseRecord)) error {
			changes++
			change(&record)
			return nil
		}}}
		v := view{self: "s1", quorum: true, role: past()}
		look := func(seqno, queue int64) {
			v.health = health{uuid: historyA, seqno: seqno, queue: queue}
			v.record = record
			d.keepPosition(t.Context(), v)
			synctest.Wait()
		}
		look(100, 0)
		time.Sleep(durable - time.Millisecond)
		look(200, 0)
		if changes != 0 {
			t.Errorf("remembered %+v before it was durable", record)
		}
		time.Sleep(time.Millisecond)
		look(300, 0)
		if record.Committed != 100 || record.Epoch != 7 || record.UUID != historyA {
			t.Errorf("remembered %+v, want position 100 of epoch 7", record)
		}
		for range 100 {
			time.Sleep(200 * time.Millisecond)
			look(300, 0)
		}
		if record.Committed != 300 || changes != 2 {
			t.Errorf("an idle writer: remembered %+v by %d changes, want 300 by 2", record, changes)
		}
		v.role.Epoch = 8
		for range 100 {
			time.Sleep(200 * time.Millisecond)
			look(300, 5)
		}
		if record.Epoch != 7 {
			t.Error("a new writer that has transactions to apply counts as having all")
		}
		for range 20 {
			time.Sleep(200 * time.Millisecond)
			look(305, 0)
		}
		if record.Epoch != 8 || record.Committed != 305 {
			t.Errorf("a new writer that has applied all: remembered %+v", record)
		}
	})
}
