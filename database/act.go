package database

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
		d.retry = time.Now().Add(unsettled) // until what was agreed has come back as a state
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
		return d.end(ctx, v, a)
	}
	return nil
}

// look reads the data folder. One that is unreadable is read again, each time
// later: what was in the way (a full disk, no memory) may be gone by then.
func (d *Database) look(ctx context.Context) {
	d.folder = look(ctx, d.paths)
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
