package database

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"trivet/internal/part"
)

// A planned switch loses no write and breaks no connection. The next writer is
// agreed first: every router then lets open transactions end and holds new
// ones. When none is open any more, the writer's own supervisor has the role
// agreed anew, under the next epoch. If it dies meanwhile, the next writer is
// elected as ever, which ends the plan.
const (
	holdLimit = 500 * time.Millisecond // for all routers to say that they hold new transactions
	openLimit = 2 * time.Second        // for the open ones to end, from the beginning
	openEvery = 10 * time.Millisecond

	restartNotice = 500 * time.Millisecond // between leaving the choice of nodes and the end of mariadbd, for readers to go elsewhere
	restartGrace  = 20 * time.Second
)

// successor is who is to take over from this server, because that is drained or
// its disk is nearly full; empty: nobody.
func (v view) successor() string {
	self, _ := part.State{Members: v.members}.Member(v.self)
	if !v.quorum || v.role.Writer != v.self || v.role.Next != "" || !self.Drained && !v.disk.below(diskStart) {
		return ""
	}
	second := ""
	for _, name := range (ballot{v}).candidates() {
		m, _ := part.State{Members: v.members}.Member(name)
		switch {
		case name == v.self || m.Drained:
		case !m.Database.Short:
			return name
		case self.Drained:
			second = cmp.Or(second, name)
		}
	}
	return second
}

// plan moves the writer away from this server: to the planned one, or because it should not be here.
func (d *Database) plan(ctx context.Context, v view) {
	if next := v.successor(); next != "" {
		d.propose(ctx, &d.role, func(ctx context.Context) error { return d.cfg.PlanWriter(ctx, v.role.Epoch, next) })
	}
	if !v.quorum || v.role.Writer != v.self || v.role.Next == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moving {
		return
	}
	d.moving = true
	d.wg.Go(func() {
		d.move(ctx, v.role)
		d.mu.Lock()
		d.moving = false
		d.mu.Unlock()
	})
}

// move makes the planned writer the writer, or gives the plan up.
func (d *Database) move(ctx context.Context, role part.DatabaseRole) {
	begun := time.Now()
	open, err := d.quiet(ctx, role)
	ctx, cancel := context.WithTimeout(ctx, agreeTimeout)
	defer cancel()
	if err == nil {
		err = d.cfg.ElectWriter(ctx, role.Epoch, role.Next)
	}
	if err == nil {
		d.log.Info("writer moved as planned", "writer", role.Next, "epoch", role.Epoch+1, "held", time.Since(begun).Round(time.Millisecond), "cut", open)
		return
	}
	d.log.Warn("planned switch of the writer given up", "writer", role.Next, "err", err)
	if err := d.cfg.PlanWriter(ctx, role.Epoch, ""); err != nil && ctx.Err() == nil {
		d.log.Info("end of the plan not agreed", "err", err)
	}
}

// quiet waits until no transaction is open, but not for ever; it returns how many are left.
func (d *Database) quiet(ctx context.Context, role part.DatabaseRole) (open int64, err error) {
	tick := time.NewTicker(openEvery)
	defer tick.Stop()
	begun := time.Now()
	for {
		s := d.known()
		if why := unplanned(s, role); why != "" {
			return 0, errors.New(why)
		}
		waited := time.Since(begun)
		if waited > holdLimit || held(s) {
			if open, err = d.cfg.Open(ctx); err != nil {
				d.log.Debug("count open transactions", "err", err)
				open = -1
			}
			if open == 0 || waited > openLimit {
				return open, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
	}
}

func (d *Database) known() part.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

// held reports whether the routers of all servers that are there hold new transactions.
func held(s part.State) bool {
	return !slices.ContainsFunc(s.Members, func(m part.Member) bool { return m.Alive && m.Holds != s.Database.Epoch })
}

// unplanned says why the plan in role is off; empty: it is not.
func unplanned(s part.State, role part.DatabaseRole) string {
	next, _ := s.Member(role.Next)
	switch {
	case s.Database.Epoch != role.Epoch || s.Database.Next != role.Next:
		return "the cluster agreed on something else meanwhile"
	case !next.Alive || next.Database.State != part.DatabaseSynced:
		return next.Name + " is not synced any more"
	}
	return ""
}

// decideRestart is for a mariadbd that an operator wants restarted.
func decideRestart(v view) action {
	if v.leaving < restartNotice {
		return action{kind: wait, why: "about to be restarted"}
	}
	return action{kind: stop, why: "an operator restarts it", grace: restartGrace}
}

// Restart ends mariadbd cleanly and starts it again, with the program and the
// settings that are there then. It returns when the node is synced, or with
// ctx. It is not for the server that takes the writes.
func (d *Database) Restart(ctx context.Context) error {
	d.mu.Lock()
	former := d.process
	if former != nil {
		d.restart = former
	}
	d.mu.Unlock()
	if former == nil {
		return errors.New("restart database: mariadbd does not run")
	}
	d.wake()
	tick := time.NewTicker(10 * openEvery)
	defer tick.Stop()
	for {
		d.mu.Lock()
		again := d.process != nil && d.process != former && d.status.State == part.DatabaseSynced
		problem := d.problem
		d.mu.Unlock()
		if again {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("restart database: not synced again: %w", errors.Join(context.Cause(ctx), problem))
		case <-tick.C:
		}
	}
}
