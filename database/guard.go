package database

import (
	"context"
	"fmt"
	"time"
)

// guarded is whether mariadbd refuses writes (its read_only), as far as is known.
type guarded int

const (
	guardUnknown guarded = iota // mariadbd was adopted, or has just started
	guardOff
	guardOn
)

// guardWait is how long mariadbd may wait for statements under way before it begins to refuse.
const guardWait = 1 // seconds

// refuses reports whether the running mariadbd is to refuse writes: it takes
// them, and its disk is nearly full. Where another server can serve, it ends
// instead (decideDisk); this is for when none can, for a full disk would hang
// it, reads and all. It takes writes again when there is room to start.
func (v view) refuses(now guarded) bool {
	if _, other := v.synced(); other || v.role.Writer != v.self {
		return false
	}
	return v.disk.below(diskStop) || now == guardOn && v.disk.below(diskStart)
}

// guard makes mariadbd refuse writes, or take them again.
func (d *Database) guard(ctx context.Context, v view) error {
	want := guardOff
	if v.refuses(d.guarded) {
		want = guardOn
	}
	if want == d.guarded {
		return nil
	}
	var is bool
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := d.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.QueryRowContext(ctx, "SELECT @@GLOBAL.read_only").Scan(&is); err != nil {
		return fmt.Errorf("see whether writes are refused: %w", err)
	}
	if is == (want == guardOn) {
		d.guarded = want
		return nil
	}
	query := fmt.Sprintf("SET SESSION lock_wait_timeout=%d, GLOBAL read_only=%t", guardWait, want == guardOn)
	if _, err := conn.ExecContext(ctx, query); err != nil {
		return fmt.Errorf("refuse writes %t: %w", want == guardOn, err)
	}
	d.guarded = want
	if want == guardOn {
		d.log.Warn("writes are refused: the disk is full", "disk", v.disk.String())
	} else {
		d.log.Info("writes are taken again", "disk", v.disk.String())
	}
	return nil
}

// warning is what an operator is to know of a synced node; empty: nothing.
func (v view) warning() string {
	if v.full {
		return "writes are refused, reads go on: the disk is full: " + v.disk.String()
	}
	return v.ddl.warning()
}
