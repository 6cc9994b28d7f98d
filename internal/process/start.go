package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// umaskLock serialises starts with a mask of their own, for umask(2) belongs to the whole process.
var umaskLock sync.Mutex

func start(cmd *exec.Cmd, s Spec) error {
	umaskLock.Lock()
	defer umaskLock.Unlock()
	if s.Umask != 0 {
		old := syscall.Umask(s.Umask)
		defer syscall.Umask(old)
	}
	if s.Confine {
		return startConfined(cmd)
	}
	return cmd.Start()
}

// startConfined starts cmd from a thread that has given up all that could ever
// be won back: a child inherits that from its thread, not from its process. The
// thread keeps the capabilities by which the child changes its user, is never
// used for anything else, and ends with its goroutine.
func startConfined(cmd *exec.Cmd) error {
	network, err := os.Open("/proc/thread-self/ns/net") // the caller's thread may be elsewhere than the process
	if err != nil {
		return err
	}
	defer func() { _ = network.Close() }()
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := errors.Join(enter(network), confineThread())
		if err == nil {
			err = cmd.Start()
		}
		result <- err
	}()
	return <-result
}

// enter brings the thread into a network namespace; who is not root is never in another.
func enter(network *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the caller's network namespace: %w", err)
	}
	return nil
}

// confineThread sets no_new_privs and empties the thread's bounding set
// (PR_SET_NO_NEW_PRIVS(2const), capabilities(7)).
func confineThread() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		switch {
		case errors.Is(err, unix.EINVAL): // the kernel's last was the one before
			return nil
		case errors.Is(err, unix.EPERM): // not root: then no_new_privs says it all
			return nil
		case err != nil:
			return fmt.Errorf("drop capability %d from the bounding set: %w", capability, err)
		}
	}
}
