package netns_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"trivet/internal/netns"
)

func TestCreateAndDelete(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	const name = "tlab-netns"
	t.Cleanup(func() { _ = netns.Delete(name) })
	if err := netns.Create(name); err != nil {
		t.Fatal(err)
	}
	if err := netns.Create(name); !errors.Is(err, os.ErrExist) {
		t.Errorf("Create again: got %v, want %v", err, os.ErrExist)
	}
	got := 0
	if err := netns.Do(name, func() error {
		all, err := net.Interfaces()
		got = len(all)
		return err
	}); err != nil || got != 1 {
		t.Errorf("interfaces inside: got %d, %v, want the loopback alone", got, err)
	}
	for range 2 {
		if err := netns.Delete(name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(netns.Path(name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("file after Delete: got %v, want none", err)
	}
}

// TestDeleteHidden does what ip netns add does on a machine's first use of it,
// after Create: the namespace's mount is then out of sight. It runs in a mount
// namespace of its own, in a process of its own.
func TestDeleteHidden(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	if os.Getenv("NETNS_TEST_HIDDEN") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestDeleteHidden$")
		cmd.Env = append(os.Environ(), "NETNS_TEST_HIDDEN=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	const name = "tlab-hidden"
	mount(t, "", "/", unix.MS_REC|unix.MS_PRIVATE)
	if err := netns.Create(name); err != nil {
		t.Fatal(err)
	}
	mount(t, netns.Dir, netns.Dir, unix.MS_BIND|unix.MS_REC)
	if err := netns.Delete(name); err != nil {
		t.Error(err)
	}
	if found, _ := filepath.Glob(netns.Path(name)); found != nil {
		t.Errorf("after Delete: got %v, want nothing", found)
	}
}

func mount(t *testing.T, source, target string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(source, target, "", flags, ""); err != nil {
		t.Fatalf("mount %s: %v", target, err)
	}
}
