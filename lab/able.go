package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"trivet/internal/link"
)

// able makes sure that this process and this kernel can run a lab.
func able() error {
	if os.Geteuid() != 0 {
		return errors.New("a lab needs root, for it makes network interfaces and namespaces: use sudo trivet up")
	}
	for _, kind := range []string{"net", "mnt", "pid", "uts"} {
		if _, err := os.Stat("/proc/self/ns/" + kind); err != nil {
			return fmt.Errorf("this kernel has no %s namespaces: use one with CONFIG_NAMESPACES", kind)
		}
	}
	failed := make(chan error, 1)
	go func() { failed <- rehearse() }()
	return <-failed
}

// rehearse makes a bridge and a cable in namespaces that end with its thread,
// so that what is missing is known before anything is changed.
func rehearse() error {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS)
	if errors.Is(err, unix.EPERM) {
		return errors.New("this root may not make namespaces (a container?): it needs CAP_SYS_ADMIN and CAP_NET_ADMIN")
	}
	if err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if err := link.CreateBridge("rehearsal", netip.MustParsePrefix("127.77.0.1/24")); err != nil {
		return fmt.Errorf("this kernel has no bridge (module bridge): %w", err)
	}
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer func() { _ = own.Close() }()
	if err := link.CreateVeth("rehearsal-a", "rehearsal-b", own); err != nil {
		return fmt.Errorf("this kernel has no virtual cables (module veth): %w", err)
	}
	return nil
}
