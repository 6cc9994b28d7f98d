package database

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A mariadbd whose disk is full does not fail: it waits for room, with its
// transactions open, and Galera's flow control then makes all servers wait for
// it. So it is ended before that, while others serve.
const (
	diskStop    = 128 << 20       // bytes; below, mariadbd ends if another is synced
	diskStart   = 256 << 20       // above, it starts again; below, there is a warning
	diskStuck   = 32 << 20        // below, mariadbd is likely to hang, at its start and at its end
	diskYield   = 3 * time.Second // for how long the writer lets the others end first: not all may
	diskLook    = time.Second
	mebibyte    = 1 << 20
	diskRounded = 16 // MiB, so that not every written byte is another problem
)

// disk is the room for the data folder. The zero value is one not looked at.
type disk struct {
	known bool
	free  uint64  // bytes
	used  float64 // share of what mariadbd's user can have
	path  string
}

// freeSpace asks for the room that mariadbd's user has in the file system of dir.
func freeSpace(dir string) disk {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil || s.Bsize <= 0 {
		return disk{}
	}
	d := disk{known: true, free: s.Bavail * uint64(s.Bsize), path: dir}
	if taken := s.Blocks - s.Bfree; taken+s.Bavail > 0 {
		d.used = float64(taken) / float64(taken+s.Bavail)
	}
	return d
}

func (d disk) below(limit uint64) bool { return d.known && d.free < limit }

func (d disk) String() string {
	left := d.free / mebibyte
	if left > diskRounded {
		left -= left % diskRounded
	}
	return fmt.Sprintf("%d MiB left on %s; free some space", left, d.path)
}

// outOfDisk reports whether the running mariadbd has to end for want of room.
// It does not if no other is there to serve.
func (v view) outOfDisk() bool {
	_, other := v.synced()
	return other && v.disk.below(diskStop) && (v.role.Writer != v.self || v.short > diskYield)
}

// noRoom reports whether the disk is too full to start. To be the first a
// little is enough.
func (v view) noRoom() bool {
	if _, other := v.synced(); other {
		return v.disk.below(diskStart)
	}
	return v.disk.below(diskStop)
}

// decideDisk ends a mariadbd before its disk is full.
func decideDisk(v view) action {
	a := action{kind: stop, why: "disk is full: " + v.disk.String(), grace: 10 * time.Second}
	if v.disk.below(diskStuck) {
		a.grace = time.Second
	}
	return a
}
