// Package netns runs code inside another network namespace of this machine:
// the lab's servers, and those that tests make.
//
// A namespace belongs to a thread, not to a process (setns(2)). Sockets made
// inside stay there for life; goroutines that the function starts do not
// follow it.
package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is where ip-netns(8) keeps named namespaces.
const Dir = "/run/netns"

// Path returns the file of the namespace: name is one made by ip netns add,
// or, if it holds a slash, already a path such as /proc/123/ns/net.
func Path(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	return filepath.Join(Dir, name)
}

// Do runs f inside the namespace and returns f's error. See Path for name.
func Do(name string, f func() error) error {
	target, err := os.Open(Path(name))
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", name, err)
	}
	defer func() { _ = target.Close() }()
	done := make(chan error, 1)
	go func() { done <- visit(int(target.Fd()), f) }()
	if err := <-done; err != nil {
		return fmt.Errorf("in network namespace %s: %w", name, err)
	}
	return nil
}

// visit enters the namespace target, runs f and returns. A thread that cannot
// return stays locked, and so ends with its goroutine.
func visit(target int, f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer func() { _ = home.Close() }()
	if err := unix.Setns(target, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter: %w", err)
	}
	result := f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err == nil {
		runtime.UnlockOSThread()
	}
	return result
}
