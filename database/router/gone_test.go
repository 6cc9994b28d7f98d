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
	s := &site{
		t: t, address: map[string]string{"s1": "127.0.81.1", "s2": "10.81.0.202"}, space: "tdb-gone", password: appPassword,
		database: map[string]string{"s1": shared(t, 0).socket, "s2": shared(t, 1).socket},
	}
	s.startAll()
	s.elect("s2", "s1", "s2")
	idle, busy := s.session("s1"), s.session("s1")
	on(t, idle, "s2")
	on(t, busy, "s2")
	began := time.Now()
	result := make(chan uint16, 1)
	go func() { result <- code(t, busy, "SELECT SLEEP(60)") }()
	poll(t, "the statement is under way", 10*time.Second, func() bool { return s.busy("s1") == 1 })
	ip(t, "-n tdb-gone link set eth0 down")
	if got := <-result; got != 1927 || time.Since(began) > 20*time.Second {
		t.Errorf("the statement under way ended with %d after %v, want 1927 soon", got, time.Since(began))
	}
	t.Logf("MEASURE server gone: the statement under way ended after %v", time.Since(began))
	s.elect("s1", "s1")
	on(t, idle, "s1")
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
