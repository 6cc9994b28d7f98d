package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Create makes a network namespace that ip-netns(8) knows by name, with
// nothing in it but a loopback that is down. It is an error if the name is
// taken.
func Create(name string) error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return fmt.Errorf("create network namespace %s: %w", name, err)
	}
	f, err := os.OpenFile(Path(name), os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("create network namespace %s: %w", name, err)
	}
	_ = f.Close()
	done := make(chan error, 1)
	go func() { done <- bindNew(Path(name)) }()
	if err := <-done; err != nil {
		_ = os.Remove(Path(name))
		return fmt.Errorf("create network namespace %s: %w", name, err)
	}
	return nil
}

// bindNew moves its thread into a new namespace and keeps that alive by a
// mount on path. The thread stays locked, and so ends with its goroutine.
func bindNew(path string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
}

// Delete takes the name away; the namespace lives on as long as a process or
// socket is in it. It is no error if there is no such name.
func Delete(name string) error {
	err := unix.Unmount(Path(name), unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	if err := os.Remove(Path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	return nil
}
