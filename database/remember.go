package database

import (
	"context"
	"time"

	"trivet/internal/part"
)

const (
	// durable is how old a position must be before it is remembered: InnoDB
	// writes its log to the disk each second, so that after that no crash takes
	// it back, and what is recovered must reach it.
	durable       = 2 * time.Second
	rememberEvery = time.Second
)

// recent is where the writer was, a moment ago and longer ago.
type recent struct {
	at    time.Time
	epoch int64
	seqno int64 // at that time

	told time.Time // when the last position was proposed
}

// remember keeps the mark of the data folder and, on the writer, what the
// cluster remembers, as they are.
func (d *Database) remember(ctx context.Context, v view) {
	if !v.running || !v.health.primary() || v.health.uuid != v.role.UUID || v.strayed() != "" {
		d.history = recent{told: d.history.told}
		return
	}
	if (v.health.state >= stateJoined || v.health.donor()) && !unknown(v.role.Starts, d.mark.Start) {
		d.keepMark(ctx, v)
	}
	if v.role.Writer == v.self && v.serves() {
		d.keepPosition(ctx, v)
	}
}

// keepMark marks the folder as one of the group's, once in each run: what it
// held before may have been replaced by a copy.
func (d *Database) keepMark(ctx context.Context, v view) {
	launch := max(v.record.Launches[v.self], d.mark.Launch)
	want := mark{Start: v.role.LastStart().ID, Launch: launch}
	d.stood = -1
	if d.marked && d.mark == want {
		return
	}
	if err := d.setMark(want); err != nil {
		d.log.Warn("database", "err", err)
		return
	}
	d.marked = true
	if v.record.Launches[v.self] < launch {
		d.count(ctx, launch)
	}
}

// keepPosition has the cluster remember how far the writer had come a moment ago.
func (d *Database) keepPosition(ctx context.Context, v view) {
	now, h := time.Now(), v.health
	if h.queue > 0 {
		d.history = recent{told: d.history.told}
		return
	}
	if d.history.epoch != v.role.Epoch || d.history.at.IsZero() {
		d.history = recent{at: now, epoch: v.role.Epoch, seqno: h.seqno, told: d.history.told}
		return
	}
	if now.Sub(d.history.at) < durable {
		return
	}
	known := part.DatabaseRecord{UUID: h.uuid, Start: v.role.LastStart().ID, Committed: d.history.seqno, Epoch: v.role.Epoch}
	r := v.record
	if r.UUID == known.UUID && r.Start == known.Start && r.Epoch == known.Epoch && r.Committed >= known.Committed {
		d.history = recent{at: now, epoch: v.role.Epoch, seqno: h.seqno, told: d.history.told}
		return
	}
	if !v.quorum || now.Sub(d.history.told) < rememberEvery {
		return
	}
	d.history.told = now
	d.propose(ctx, &d.record, func(ctx context.Context) error {
		return d.cfg.Remember(ctx, func(r *part.DatabaseRecord) {
			if r.UUID == known.UUID && r.Start == known.Start {
				known.Committed = max(known.Committed, r.Committed)
			}
			r.UUID, r.Start, r.Committed, r.Epoch = known.UUID, known.Start, known.Committed, max(known.Epoch, r.Epoch)
		})
	})
}
