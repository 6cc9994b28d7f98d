package tunnel

import (
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

type rawConn = syscall.RawConn

func byteSize(n int64) string { return strconv.FormatInt(n>>10, 10) + "kB" }

// cpu is the processor time that this thread has used.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
