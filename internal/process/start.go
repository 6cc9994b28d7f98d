package process

import (
	"os/exec"
	"sync"
	"syscall"
)

// umaskLock serialises starts with a mask of their own, for umask(2) belongs to the whole process.
var umaskLock sync.Mutex

func start(cmd *exec.Cmd, umask int) error {
	umaskLock.Lock()
	defer umaskLock.Unlock()
	if umask != 0 {
		old := syscall.Umask(umask)
		defer syscall.Umask(old)
	}
	return cmd.Start()
}
