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
	done := make(chan error, 1)
	go func() { done <- unbind(Path(name)) }()
	if err := <-done; err != nil {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	return nil
}

// unbind removes the file path, which takes the mounts on it away in every
// mount namespace but that of the caller, where they make the file busy
// (unlink(2)). So the caller is a thread in a mount namespace of its own,
// which it first frees of those mounts. Out of sight are those that were there
// when ip-netns(8) mounted Dir over itself. The thread stays locked, and so
// ends with its goroutine.
func unbind(path string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for {
		for unix.Unmount(path, unix.MNT_DETACH) == nil {
			continue
		}
		err := os.Remove(path)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || unix.Unmount(Dir, unix.MNT_DETACH) != nil {
			return err
		}
	}
}
