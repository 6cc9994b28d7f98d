package tunnel

import (
	"sync"

	"golang.org/x/sys/unix"
)

// pipeSize is the capacity of a pipe. A user without capabilities may have 64
// MiB of it by default (pipe-user-pages-soft), that is 256 such pipes.
const pipeSize = 256 << 10

// keptPipes is how many empty pipes are kept for use; the others are closed.
const keptPipes = 64

type pipe struct{ r, w int }

var pipes struct {
	sync.Mutex
	kept []*pipe
}

// takePipe is an empty pipe, or nil if there are no descriptors left.
func takePipe() *pipe {
	pipes.Lock()
	if n := len(pipes.kept); n > 0 {
		p := pipes.kept[n-1]
		pipes.kept = pipes.kept[:n-1]
		pipes.Unlock()
		return p
	}
	pipes.Unlock()
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	// Beyond the user's share it stays small, and works as well.
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{r: fds[0], w: fds[1]}
}

// give keeps an empty pipe, and closes one that is not.
func (p *pipe) give(empty bool) {
	if empty && p.keep() {
		return
	}
	_ = unix.Close(p.r) // nothing can be done about it
	_ = unix.Close(p.w)
}

func (p *pipe) keep() bool {
	pipes.Lock()
	defer pipes.Unlock()
	if len(pipes.kept) >= keptPipes {
		return false
	}
	pipes.kept = append(pipes.kept, p)
	return true
}
