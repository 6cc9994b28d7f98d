package database

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"trivet/database/sst"
	"trivet/internal/pace"
	"trivet/internal/part"
	"trivet/internal/process"
)

const (
	watchful     = 100 * time.Millisecond // between two looks while something is written, or not well
	unsettled    = 250 * time.Millisecond // while something is going on that is not mariadbd's
	steady       = 500 * time.Millisecond // while nobody asks anything of it
	idleAfter    = 3 * time.Second        // without a statement, for steady
	idleQueries  = 3                      // statements between two looks that are ours
	checkTimeout = time.Second
	agreeTimeout = 3 * time.Second
	stopGrace    = 30 * time.Second
	absence      = 3 * time.Second // after death, so that the group has forgotten an evicted node (view_forget_timeout)
	startMin     = 250 * time.Millisecond
	startMax     = 10 * time.Second
	lookMin      = 2 * time.Second // before an unreadable folder is read again
	lookMax      = time.Minute
	frozenAfter  = 4 * time.Second         // without a look, the server was not running
	wakingLimit  = 1500 * time.Millisecond // until Galera has noticed that the group went on without it
	queueMuch    = 100                     // transactions; Galera's flow control sets in at 128 (gcs.fc_limit)
)

// loop is what only Run's goroutine touches.
type loop struct {
	db        *sql.DB
	folder    folder
	mark      mark  // of the data folder
	marked    bool  // it was written since mariadbd was started
	claimed   int64 // the launch that the cluster was told of; 0: none
	stood     int64 // see view
	history   recent
	health    health
	asked     time.Time     // when mariadbd was last asked
	active    time.Time     // when somebody else was last seen to have asked it
	thawed    time.Time     // when the server was last found to have been frozen
	gcomm     string        // last known of the mariadbd that runs or has just ended
	died      bool          // mariadbd has ended since it was last synced
	lookAgain time.Time     // when an unreadable folder is looked at again
	lookPause time.Duration // after the next failure to read it
	lost      time.Time     // since when the agreed writer has been lost; zero: it is not
	alone     time.Time     // since when no synced node is known anywhere
	apart     time.Time     // since when our node is unconnected
	queued    time.Time     // since when we could join
	nowhere   time.Time     // since when our node gets nowhere
	behind    time.Time     // since when our node does not get on with what it has to apply
	foreign   time.Time     // since when the mark has named a start that is not agreed
	missing   time.Time     // since when only servers that are gone are waited for
	ddl       ddl           // a change of a large table that is under way here
	ddlLooked time.Time
	guarded   guarded   // whether mariadbd refuses writes
	short     time.Time // since when the disk is too full to go on
	leaving   time.Time // since when an operator wants mariadbd restarted
	disk      disk      // as of looked
	looked    time.Time
	pause     time.Duration     // before the next start
	notUntil  time.Time         // no start before
	rejoin    time.Time         // no start as one of the group before
	grouped   time.Time         // when mariadbd was last found in a group that may write
	evicted   map[string]string // gcomm by server, of the last one that we evicted
	sized     int64             // bytes of memory that mariadbd was last given or found to have; 0: not known
	ensured   account           // what was last ensured in the database

	wg      sync.WaitGroup
	moving  bool     // the writer, to the planned one; guarded by mu
	role    proposal // of the agreed role
	record  proposal // of what is remembered
	failure error    // of the last action
}

// proposal is a change that the cluster is asked for; guarded by mu.
type proposal struct {
	busy  bool
	retry time.Time
}

var errClean = errors.New("exit status 0")

// Run supervises until ctx ends. mariadbd goes on then: the next node adopts it.
func (d *Database) Run(ctx context.Context) error {
	db, err := open(d.paths.Socket, "root", "", "")
	if err != nil {
		return err
	}
	d.db, d.evicted, d.stood = db, make(map[string]string), -1
	defer func() { _ = db.Close() }()
	defer d.wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.kick:
		case <-d.ended():
			d.bury()
		case <-timer.C:
		}
		if d.ready() {
			timer.Reset(d.step(ctx))
		}
	}
}

// ready adopts what runs, once, and reports whether there is a state to act on.
func (d *Database) ready() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.applied && !d.halted
}

// ended is closed when mariadbd has ended; nil, which blocks, while none is known.
func (d *Database) ended() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process == nil || d.halted {
		return nil
	}
	return d.process.Done()
}

// bury cleans up after a mariadbd that has ended by itself: what it left in
// its group, such as a copy's program that still holds its port, ends too.
func (d *Database) bury() {
	d.mu.Lock()
	p := d.process
	d.process = nil
	d.mu.Unlock()
	if p == nil {
		return
	}
	p.KillGroup()
	p.Release()
	d.log.Warn("mariadbd ended", "err", p.Err(), "ran", time.Since(p.Started()).Round(time.Millisecond), "said", lastError(logTail(d.paths.Log)))
	d.leave(time.Now())
	d.folder, d.health, d.died = folder{}, health{}, true
	d.failed(fmt.Errorf("mariadbd ended (%w) and is started again; see %s", cmp.Or(p.Err(), errClean), d.paths.Log))
}

// leave holds back the next start if a mariadbd that has ended was in the group
// until just now. Its last check may already have found it dying, and answered nothing.
func (l *loop) leave(now time.Time) {
	if now.Sub(l.grouped) < absence {
		l.rejoin = now.Add(absence)
	}
}

// step observes, reports, and does one thing. It returns when to look again.
func (d *Database) step(ctx context.Context) time.Duration {
	if err := d.adopt(); err != nil {
		d.doubt(err)
		return steady
	}
	v := d.observe(ctx)
	d.evict(ctx, v) // first: nobody writes until then
	a := decide(v)
	d.publish(v, a)
	d.elect(ctx, v)
	d.plan(ctx, v)
	d.act(ctx, v, a)
	d.keep(ctx, v)
	d.remember(ctx, v)
	switch {
	case a.kind == read:
		return 0
	case v.running && (!v.serves() || !d.lost.IsZero() || time.Since(d.active) < idleAfter):
		return watchful
	case !v.running || a.kind != wait:
		return unsettled
	}
	return pace.Next(steady)
}

// adopt finds a mariadbd that an earlier node started. After an error it is
// not known whether one runs: then nothing may be done to the data folder.
func (d *Database) adopt() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process != nil || d.folder.looked {
		return nil
	}
	p, err := process.Adopt(d.paths.Records, recordName)
	if errors.Is(err, process.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	if d.mark, err = readMark(d.paths.Data); err != nil {
		return err
	}
	d.log.Info("adopted mariadbd", "pid", p.PID())
	d.process, d.renewed = p, true // it may have read an older identity than the files hold now
	return nil
}

// doubt makes known that it cannot be told whether mariadbd runs.
func (d *Database) doubt(err error) {
	err = fmt.Errorf("find out whether mariadbd runs: %w", err)
	d.mu.Lock()
	defer d.mu.Unlock()
	if fmt.Sprint(d.problem) != err.Error() {
		d.log.Warn("database", "problem", err)
	}
	d.problem = err
}

// observe collects the view; it asks mariadbd, if that runs.
func (d *Database) observe(ctx context.Context) view {
	d.mu.Lock()
	s, p, leaves := d.state, d.process, d.process != nil && d.process == d.restart
	d.mu.Unlock()
	v := view{self: s.Server, members: s.Members, role: s.Database, record: s.Record, quorum: s.Quorum, running: p != nil, mark: d.mark, stood: -1}
	if now := time.Now(); now.Sub(d.looked) >= diskLook {
		d.disk, d.looked = d.room(d.paths.Data), now
	}
	v.disk, v.short = d.disk, since(&d.short, d.disk.below(diskStop))
	if p == nil {
		v.folder, v.died = d.folder, d.died
		v.again = v.folder.err != nil && time.Now().After(d.lookAgain)
		_, other := v.synced()
		v.queued = since(&d.queued, other)
		v.missing = since(&d.missing, v.onlyMissing())
		return v
	}
	v.ddl, v.full = d.ddl, d.guarded == guardOn
	v.leaving = since(&d.leaving, leaves)
	v.first, d.queued = p.Note() == noteAlone, time.Time{}
	d.measure(ctx, &v)
	if v.health.synced() {
		d.died, d.pause, d.failure = false, 0, nil
	}
	return v
}

// measure asks the running mariadbd and adds to v how it is and for how long.
func (d *Database) measure(ctx context.Context, v *view) {
	before, queries := d.health.queue, d.health.queries
	if now := time.Now(); !d.asked.IsZero() && now.Sub(d.asked) > frozenAfter {
		d.thawed = now
	}
	d.health = d.ask(ctx)
	d.asked = time.Now()
	if d.health.primary() {
		d.grouped = d.asked
	}
	if d.health.queries > queries+idleQueries {
		d.active = d.asked
	}
	v.waking = !d.thawed.IsZero() && time.Since(d.thawed) < wakingLimit
	v.health = d.health
	if d.health.gcomm != "" {
		d.gcomm = d.health.gcomm
	}
	if h := d.health; d.marked && d.stood < 0 && h.answers && h.uuid != "" && !h.primary() {
		d.stood = h.seqno
	}
	v.stood = d.stood
	v.foreign = since(&d.foreign, v.quorum && unknown(v.role.Starts, d.mark.Start))
	v.missing = since(&d.missing, !d.health.primary() && v.onlyMissing())
	_, other := v.synced()
	v.lonely = since(&d.alone, v.quorum && !other && !v.health.primary())
	v.apart = since(&d.apart, v.health.answers && !v.health.connected)
	if !v.health.primary() || v.health.state < stateJoined {
		v.copy, v.copying = sst.ReadProgress(d.paths.Data)
	}
	v.nowhere = since(&d.nowhere, other && !v.health.connected && !v.copying)
	v.behind = since(&d.behind, v.health.queue >= queueMuch && v.health.queue >= before)
}

// ask checks the running mariadbd; one that does not answer has the zero health.
func (d *Database) ask(ctx context.Context) health {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	h, err := check(ctx, d.db)
	if err != nil {
		return health{}
	}
	return h
}

// since keeps in t when a condition began and returns for how long it has held.
func since(t *time.Time, holds bool) time.Duration {
	switch {
	case !holds:
		*t = time.Time{}
		return 0
	case t.IsZero():
		*t = time.Now()
	}
	return time.Since(*t)
}

// publish makes the node's state and problem known.
func (d *Database) publish(v view, a action) {
	m, err := describeSelf(v, a)
	if err != nil && d.failure != nil && a.kind != refuse {
		err = d.failure
	}
	if m.State == part.DatabaseDown || m.State == part.DatabaseEmpty {
		m.Gcomm = d.gcomm
	}
	m.Accepts, m.Short = d.accepts(v), v.disk.below(diskStart)
	d.mu.Lock()
	if fmt.Sprint(d.problem) != fmt.Sprint(err) {
		d.log.Info("database", "state", m.State, "problem", err)
	}
	d.problem, d.told, d.seen = err, time.Now(), v
	d.mu.Unlock()
	d.meters.set(v, m.State == part.DatabaseSynced)
	if m.State != part.DatabaseUnknown {
		d.report(m)
	}
}

func (d *Database) report(m part.DatabaseMember) {
	d.mu.Lock()
	changed := m != d.status
	d.status = m
	d.mu.Unlock()
	if changed {
		d.cfg.Report(m)
	}
}

// describeSelf is what this server says of its node, to the others and to the operator.
func describeSelf(v view, a action) (part.DatabaseMember, error) {
	why := a.why
	if why == "" {
		why = a.kind.String()
	}
	if !v.running {
		f := v.folder
		switch {
		case !f.looked && v.died: // said at once, so that the others need not wait for its silence
			if a.kind != refuse {
				why = "mariadbd has ended"
			}
			return part.DatabaseMember{State: part.DatabaseDown, Seqno: -1}, errors.New("down: " + why)
		case !f.looked:
			return part.DatabaseMember{}, errors.New(why)
		case f.err != nil, f.uuid != "":
			m := part.DatabaseMember{State: part.DatabaseDown, UUID: f.uuid, Seqno: f.seqno, Start: v.mark.Start, Old: v.old()}
			return m, errors.New("down: " + why)
		}
		return part.DatabaseMember{State: part.DatabaseEmpty, Seqno: -1}, errors.New("empty: " + why)
	}
	m := part.DatabaseMember{State: part.DatabaseJoining, UUID: v.health.uuid, Gcomm: v.health.gcomm, Start: v.mark.Start}
	if v.health.primary() && !v.waking {
		m.Group = strings.Join(v.health.names, ",")
	} else if !v.health.primary() && v.health.uuid != "" {
		m.Seqno = v.health.seqno // it stands still
	}
	if v.serves() {
		m.State = part.DatabaseSynced
		if why := v.warning(); why != "" {
			return m, errors.New(why)
		}
		if v.disk.below(diskStart) {
			return m, errors.New("disk is nearly full: " + v.disk.String())
		}
		return m, nil
	}
	if v.copying && a.kind == wait {
		why = receiving(v.copy)
	}
	return m, errors.New(why)
}

// receiving says how far a full copy has come, in steps that are worth a line each.
func receiving(p sst.Progress) string {
	percent, known := p.Percent()
	if !known {
		return "receiving a full copy"
	}
	return fmt.Sprintf("receiving a full copy of about %d MiB: %d %%", max(1, p.Total/mebibyte), percent/10*10)
}
