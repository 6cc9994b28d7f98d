package router

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestServerGone unplugs the writer's server: the app's connection ends soon,
// though nobody said so and nothing was being sent.
func TestServerGone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("needs ip: %v", err)
	}
	remove := func() {
		_ = exec.Command("ip", "netns", "del", "tdb-gone").Run()
		_ = exec.Command("ip", "link", "del", "tdb-gone").Run()
	}
	remove()
	t.Cleanup(remove)
	ip(t, "netns add tdb-gone")
	ip(t, "link add tdb-gone type veth peer name eth0 netns tdb-gone")
	ip(t, "addr add 10.81.0.201/30 dev tdb-gone")
	ip(t, "link set tdb-gone up")
	ip(t, "-n tdb-gone addr add 10.81.0.202/30 dev eth0")
	ip(t, "-n tdb-gone link set eth0 up")
	s := &site{t: t, address: map[string]string{"s1": "127.0.81.1", "s2": "10.81.0.202"}, space: "tdb-gone"}
	s.startAll()
	s.elect("s2", "s1", "s2")
	c := s.connect("s1")
	c.line("s2")
	ip(t, "-n tdb-gone link set eth0 down")
	began := time.Now()
	c.ended()
	if got := time.Since(began); got > 20*time.Second {
		t.Errorf("the connection ended after %v, want an end soon", got)
	} else {
		t.Logf("MEASURE server gone: the idle connection ended after %v", got)
	}
}

func ip(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", line, err, out)
	}
}

// inNamespace runs f on a thread in the namespace, which ends with it.
func inNamespace(name string, f func() error) error {
	fd, err := unix.Open("/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}
