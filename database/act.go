package database

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"syscall"
	"time"

	"trivet/internal/part"
	"trivet/internal/process"
)

// elect proposes a writer if the agreed one is lost.
func (d *Database) elect(ctx context.Context, v view) {
	writer, after := ballot{v}.elect()
	if lost := since(&d.lost, writer != ""); writer == "" || lost < after {
		return
	}
	d.propose(ctx, &d.role, func(ctx context.Context) error {
		d.log.Info("proposing writer", "writer", writer, "instead_of", v.role.Writer, "epoch", v.role.Epoch+1)
		if err := d.cfg.ElectWriter(ctx, v.role.Epoch, writer); err != nil {
			return fmt.Errorf("elect writer %s: %w", writer, err)
		}
		return nil
	})
}

// propose runs f beside the loop, one of each kind at a time, and not at once again after it.
func (d *Database) propose(ctx context.Context, p *proposal, f func(context.Context) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.busy || time.Now().Before(p.retry) {
		return
	}
	p.busy = true
	d.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, agreeTimeout)
		defer cancel()
		err := f(ctx)
		d.mu.Lock()
		p.busy = false
		p.retry = time.Now().Add(unsettled) // until what was agreed has come back as a state
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
	if a.kind == join && time.Now().Before(d.rejoin) {
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
		d.look(ctx)
	case wipe:
		d.folder = folder{}
		return wipeFolder(d.paths.Data)
	case agree:
		d.agree(ctx, v.role, a.next)
	case join:
		if a.full {
			return d.startAnew(v, a.why)
		}
		return d.start(ctx, v)
	case alone:
		return d.startAlone(ctx, v)
	case rescue:
		d.log.Warn("this node goes on alone", "uuid", v.health.uuid, "seqno", v.health.seqno)
		if err := d.setMark(mark{Start: v.role.LastStart().ID, Launch: d.mark.Launch}); err != nil {
			return err
		}
		return d.exec(ctx, "SET GLOBAL wsrep_provider_options='pc.bootstrap=YES'")
	case reconnect:
		d.apart = time.Now()
		return d.exec(ctx, "SET GLOBAL wsrep_cluster_address=@@wsrep_cluster_address")
	case stop:
		return d.end(ctx, v, a)
	}
	return nil
}

// agree proposes next. A start of the group gets its name here.
func (d *Database) agree(ctx context.Context, previous, next part.DatabaseRole) {
	if n := len(next.Starts); n > 0 && next.Starts[n-1].ID == "" {
		next.Starts[n-1].ID, next.Starts[n-1].At = rand.Text()[:12], time.Now().UTC().Truncate(time.Second)
	}
	d.propose(ctx, &d.role, func(ctx context.Context) error { return d.cfg.Agree(ctx, previous, next) })
}

// look reads the data folder. One that is unreadable is read again, each time
// later: what was in the way (a full disk, no memory) may be gone by then.
func (d *Database) look(ctx context.Context) {
	d.folder = look(ctx, d.paths)
	if d.folder.looked && d.folder.err == nil {
		d.mark, d.folder.err = readMark(d.paths.Data)
	}
	if d.folder.err == nil {
		d.lookPause = 0
		return
	}
	d.lookPause = min(max(2*d.lookPause, lookMin), lookMax)
	d.lookAgain = time.Now().Add(d.lookPause)
}

func (d *Database) startAlone(ctx context.Context, v view) error {
	if !v.folder.made {
		if err := install(ctx, d.paths); err != nil {
			return err
		}
		d.folder.made = true
	}
	if ok, err := d.claim(ctx, v); !ok {
		return err
	}
	if err := d.setMark(mark{Start: v.role.LastStart().ID, Launch: d.mark.Launch}); err != nil {
		return err
	}
	if err := permitAlone(d.paths, v.folder); err != nil {
		return fmt.Errorf("permit start without a group: %w", err)
	}
	return d.launch(v, v.folder, true)
}

// start has mariadbd join.
func (d *Database) start(ctx context.Context, v view) error {
	if v.folder.made {
		if ok, err := d.claim(ctx, v); !ok {
			return err
		}
	}
	return d.launch(v, v.folder, false)
}

// startAnew has mariadbd join by a full copy. The folder's mark stays as it is
// until the copy has taken the place of what is there.
func (d *Database) startAnew(v view, why string) error {
	d.log.Warn("taking a full copy", "why", why, "uuid", v.folder.uuid, "seqno", v.folder.seqno)
	if err := unready(d.paths.Data); err != nil {
		return err
	}
	d.mark = mark{} // the one in the folder goes with what is there
	return d.launch(v, folder{seqno: -1}, false)
}

// claim counts a start of mariadbd on this data folder, in its mark and then in
// the cluster; false until the cluster has it. A copy of the folder from before
// is known by its lower count.
func (d *Database) claim(ctx context.Context, v view) (bool, error) {
	told := v.record.Launches[v.self]
	if d.claimed != 0 && told >= d.claimed && d.mark.Launch == told {
		return true, nil
	}
	if d.claimed <= told {
		d.claimed = max(told, d.mark.Launch) + 1
	}
	if d.mark.Launch != d.claimed {
		if err := d.setMark(mark{Start: d.mark.Start, Launch: d.claimed}); err != nil {
			return false, err
		}
	}
	d.count(ctx, d.claimed)
	return false, nil
}

// count tells the cluster of a launch.
func (d *Database) count(ctx context.Context, launch int64) {
	server := d.cfg.Server
	d.propose(ctx, &d.record, func(ctx context.Context) error {
		return d.cfg.Remember(ctx, func(r *part.DatabaseRecord) {
			launches := maps.Clone(r.Launches)
			if launches == nil {
				launches = map[string]int64{}
			}
			launches[server] = max(launches[server], launch)
			r.Launches = launches
		})
	})
}

func (d *Database) setMark(m mark) error {
	if err := m.write(d.paths.Data); err != nil {
		return err
	}
	d.mark = m
	return nil
}

func (d *Database) launch(v view, f folder, first bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.halted {
		return nil
	}
	p, err := launch(d.paths, f, first, v.donors())
	if err != nil {
		return err
	}
	d.log.Info("started mariadbd", "pid", p.PID(), "first", first, "uuid", f.uuid, "seqno", f.seqno)
	d.sized, d.claimed, d.marked, d.stood = 0, 0, false, f.seqno
	d.sized, d.ensured, d.guarded, d.ddl = 0, account{}, guardUnknown, ddl{}
	d.process, d.renewed, d.alone, d.apart, d.nowhere = p, false, time.Time{}, time.Time{}, time.Time{}
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

// end stops a mariadbd that is not to go on: it waits for nobody, or has no room.
func (d *Database) end(ctx context.Context, v view, a action) error {
	d.log.Warn("ending mariadbd", "why", a.why)
	d.mu.Lock()
	p := d.process
	d.process = nil
	d.mu.Unlock()
	d.folder, d.health, d.nowhere, d.behind = folder{}, health{}, time.Time{}, time.Time{}
	if v.health.primary() {
		d.died, d.rejoin = true, time.Now().Add(absence)
	}
	return p.Stop(ctx, syscall.SIGTERM, cmp.Or(a.grace, time.Second)) // a joiner holds no transaction, and ends slowly
}

func (d *Database) exec(ctx context.Context, query string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := d.db.ExecContext(ctx, query); err != nil {
		return fmt.Errorf("run %s: %w", query, err)
	}
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
