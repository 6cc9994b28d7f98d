package database

import (
	"golang.org/x/sys/unix"

	"trivet/site"
)

const (
	leastMemory = 64 // MiB; what MariaDB needs besides is as much again
	memoryShare = 64 // of the server's memory, one part: the database is one of seven
)

// pool is the buffer pool's size in MiB: what the site says, or a share of the
// server's memory.
func pool(d site.Database, server uint64) int {
	if d.Memory > 0 {
		return d.Memory
	}
	return max(leastMemory, int(server/memoryShare/mebibyte))
}

// serverMemory is the memory of the machine in bytes, of which servers share one.
func serverMemory(servers int) uint64 {
	var i unix.Sysinfo_t
	if err := unix.Sysinfo(&i); err != nil {
		return 0
	}
	return uint64(i.Totalram) * uint64(i.Unit) / uint64(max(1, servers))
}
