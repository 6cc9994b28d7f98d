package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"trivet/internal/part"
	"trivet/internal/process"
)

const (
	unsettled    = 250 * time.Millisecond // between two looks while something is going on
	steady       = 500 * time.Millisecond
	checkTimeout = time.Second
	agreeTimeout = 3 * time.Second
	stopGrace    = 30 * time.Second
	startMin     = 250 * time.Millisecond
	startMax     = 10 * time.Second
)

// loop is what only Run's goroutine touches.
type loop struct {
	db       *sql.DB
	folder   folder
	health   health
	gcomm    string        // last known of the mariadbd that runs or has just ended
	died     bool          // mariadbd has ended since it was last synced
	lost     time.Time     // since when the agreed writer has been lost; zero: it is not
	alone    time.Time     // since when no synced node is known anywhere
	apart    time.Time     // since when our node is unconnected
	queued   time.Time     // since when we could join
	pause    time.Duration // before the next start
	notUntil time.Time     // no start before
	ensured  account       // what was last ensured in the database

	wg        sync.WaitGroup
	proposing bool // guarded by mu
	retry     time.Time
	failure   error // of the last action
}

// Run supervises until ctx ends. mariadbd goes on then: the next node adopts it.
func (d *Database) Run(ctx context.Context) error {
	db, err := open(d.paths.Socket, "root", "", "")
	if err != nil {
		return err
	}
	d.db = db
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
	why := lastError(logTail(d.paths.Log))
	d.log.Warn("mariadbd ended", "err", p.Err(), "ran", time.Since(p.Started()).Round(time.Millisecond), "said", why)
	d.folder, d.health, d.died = folder{}, health{}, true
	d.failed(fmt.Errorf("mariadbd ended (%w) and is started again; it said: %s", p.Err(), why))
}

// step observes, reports, and does one thing. It returns when to look again.
func (d *Database) step(ctx context.Context) time.Duration {
	d.adopt()
	v := d.observe(ctx)
	a := decide(v)
	d.publish(v, a)
	d.elect(ctx, v)
	d.act(ctx, v, a)
	if v.serves() {
		d.keep(ctx, v)
	}
	switch {
	case a.kind == read:
		return 0
	case !v.serves() || !d.lost.IsZero() || a.kind != wait:
		return unsettled
	}
	return steady
}

// adopt finds a mariadbd that an earlier node started.
func (d *Database) adopt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process != nil || d.folder.looked {
		return
	}
	p, err := process.Adopt(d.paths.Records, recordName)
	if errors.Is(err, process.ErrNone) {
		return
	}
	if err != nil {
		d.log.Warn("adopt mariadbd", "err", err)
		return
	}
	d.log.Info("adopted mariadbd", "pid", p.PID())
	d.process = p
}

// observe collects the view; it asks mariadbd, if that runs.
func (d *Database) observe(ctx context.Context) view {
	d.mu.Lock()
	s, p := d.state, d.process
	d.mu.Unlock()
	v := view{self: s.Server, members: s.Members, role: s.Database, quorum: s.Quorum, running: p != nil}
	if p == nil {
		v.folder, v.died = d.folder, d.died
		_, other := v.synced()
		v.queued = since(&d.queued, other)
		return v
	}
	v.first, d.queued = p.Note() == noteAlone, time.Time{}
	d.health = d.ask(ctx)
	v.health = d.health
	if d.health.gcomm != "" {
		d.gcomm = d.health.gcomm
	}
	_, other := v.synced()
	v.lonely = since(&d.alone, !other && !v.health.primary())
	v.apart = since(&d.apart, v.health.answers && !v.health.connected)
	if v.health.synced() {
		d.died, d.pause, d.failure = false, 0, nil
	}
	return v
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
	d.mu.Lock()
	if fmt.Sprint(d.problem) != fmt.Sprint(err) {
		d.log.Info("database", "state", m.State, "problem", err)
	}
	d.problem = err
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
			return part.DatabaseMember{State: part.DatabaseDown, Seqno: -1}, errors.New("down: mariadbd has ended")
		case !f.looked:
			return part.DatabaseMember{}, errors.New(why)
		case f.err != nil, f.uuid != "":
			return part.DatabaseMember{State: part.DatabaseDown, UUID: f.uuid, Seqno: f.seqno}, errors.New("down: " + why)
		}
		return part.DatabaseMember{State: part.DatabaseEmpty, Seqno: -1}, errors.New("empty: " + why)
	}
	m := part.DatabaseMember{State: part.DatabaseJoining, UUID: v.health.uuid, Gcomm: v.health.gcomm}
	if v.serves() {
		m.State = part.DatabaseSynced
		return m, nil
	}
	return m, errors.New(why)
}

// elect proposes a writer if the agreed one is lost.
func (d *Database) elect(ctx context.Context, v view) {
	writer, after := ballot{v}.elect()
	if lost := since(&d.lost, writer != ""); writer == "" || lost < after {
		return
	}
	d.propose(ctx, func(ctx context.Context) error {
		d.log.Info("proposing writer", "writer", writer, "instead_of", v.role.Writer, "epoch", v.role.Epoch+1)
		if err := d.cfg.ElectWriter(ctx, v.role.Epoch, writer); err != nil {
			return fmt.Errorf("elect writer %s: %w", writer, err)
		}
		return nil
	})
}

// propose runs f beside the loop, one at a time, and not at once again after a failure.
func (d *Database) propose(ctx context.Context, f func(context.Context) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.proposing || time.Now().Before(d.retry) {
		return
	}
	d.proposing = true
	d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, agreeTimeout)
		defer cancel()
		err := f(ctx)
		d.mu.Lock()
		d.proposing = false
		d.retry = time.Time{}
		if err != nil {
			d.retry = time.Now().Add(unsettled)
		}
		d.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			d.log.Info("proposal not agreed", "err", err)
		}
	})
}

// act does what was decided, not too soon after a failure.
func (d *Database) act(ctx context.Context, v view, a action) {
	if a.kind == wait || a.kind == refuse || a.kind != read && time.Now().Before(d.notUntil) {
		return
	}
	err := d.perform(ctx, v, a)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		d.failure = nil
		return
	}
	d.log.Warn("database", "action", a.kind.String(), "err", err)
	d.failed(err)
}

// failed keeps err for Check and holds back the next attempt, each time longer.
func (d *Database) failed(err error) {
	d.failure = err
	d.pause = min(max(2*d.pause, startMin), startMax)
	d.notUntil = time.Now().Add(d.pause)
}

func (d *Database) perform(ctx context.Context, v view, a action) error {
	switch a.kind {
	case read:
		d.folder = look(ctx, d.paths)
	case wipe:
		d.folder = folder{}
		return wipeFolder(d.paths.Data)
	case agree:
		d.propose(ctx, func(ctx context.Context) error {
			return d.cfg.Bootstrap(ctx, v.role, a.next.Bootstrap, a.next.UUID)
		})
	case join:
		return d.start(v, false)
	case alone:
		return d.startAlone(ctx, v)
	case rescue:
		d.log.Warn("this node goes on alone", "uuid", v.health.uuid, "seqno", v.health.seqno)
		return d.exec(ctx, "SET GLOBAL wsrep_provider_options='pc.bootstrap=YES'")
	case reconnect:
		d.apart = time.Now()
		return d.exec(ctx, "SET GLOBAL wsrep_cluster_address=@@wsrep_cluster_address")
	case stop:
		return d.end(ctx)
	}
	return nil
}

func (d *Database) startAlone(ctx context.Context, v view) error {
	if !v.folder.made {
		if err := install(ctx, d.paths); err != nil {
			return err
		}
		d.folder.made = true
	}
	if err := permitAlone(d.paths, v.folder); err != nil {
		return fmt.Errorf("permit start without a group: %w", err)
	}
	return d.start(v, true)
}

func (d *Database) start(v view, first bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.halted {
		return nil
	}
	p, err := launch(d.paths, v.folder, first, v.donors())
	if err != nil {
		return err
	}
	d.log.Info("started mariadbd", "pid", p.PID(), "first", first, "uuid", v.folder.uuid, "seqno", v.folder.seqno)
	d.process, d.renewed, d.alone, d.apart = p, false, time.Time{}, time.Time{}
	d.wake()
	return nil
}

// donors are the synced others but the writer, for giving a copy slows the writes.
func (v view) donors() []string {
	var names []string
	for _, m := range v.members {
		if m.Name != v.self && m.Name != v.role.Writer && m.Database.State == part.DatabaseSynced {
			names = append(names, m.Name)
		}
	}
	return names
}

// end stops a mariadbd that waits for nobody.
func (d *Database) end(ctx context.Context) error {
	d.mu.Lock()
	p := d.process
	d.process = nil
	d.mu.Unlock()
	d.folder, d.health = folder{}, health{}
	return p.Stop(ctx, syscall.SIGTERM, 5*time.Second)
}

func (d *Database) exec(ctx context.Context, query string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := d.db.ExecContext(ctx, query); err != nil {
		return fmt.Errorf("run %s: %w", query, err)
	}
	return nil
}

// keep is the upkeep of a synced node: renewed identity, the app's account.
func (d *Database) keep(ctx context.Context, v view) {
	if err := errors.Join(d.reload(ctx), d.ensure(ctx, v)); err != nil && ctx.Err() == nil {
		d.log.Warn("upkeep of the database", "err", err)
	}
}

// reload lets mariadbd read a renewed identity.
func (d *Database) reload(ctx context.Context) error {
	d.mu.Lock()
	renewed := d.renewed
	d.mu.Unlock()
	if !renewed {
		return nil
	}
	if err := d.exec(ctx, "SET GLOBAL wsrep_provider_options='socket.ssl_reload=1'"); err != nil {
		return err
	}
	d.mu.Lock()
	d.renewed = false
	d.mu.Unlock()
	d.log.Info("database reads its renewed identity")
	return nil
}

// ensure makes the app's account, on the writer, when it is new or changed.
func (d *Database) ensure(ctx context.Context, v view) error {
	d.mu.Lock()
	s := d.state
	d.mu.Unlock()
	a := account{s.Site.Database.Name, s.Site.Database.User, s.Secrets[part.SecretAppDatabase]}
	if v.role.Writer != v.self || a == d.ensured {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := a.ensure(ctx, d.db, d.paths.Socket); err != nil {
		return err
	}
	d.ensured = a
	return nil
}

// Stop ends mariadbd cleanly, or by force when ctx ends or it takes too long,
// and keeps it down.
func (d *Database) Stop(ctx context.Context) error {
	d.mu.Lock()
	d.halted = true
	p := d.process
	d.process = nil
	d.mu.Unlock()
	if p == nil {
		var err error
		if p, err = process.Adopt(d.paths.Records, recordName); errors.Is(err, process.ErrNone) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return p.Stop(ctx, syscall.SIGTERM, stopGrace)
}
