package lab

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"trivet/internal/link"
	"trivet/internal/netns"
)

// TestStartCutShort: Start is given up at any moment, and then repeated.
func TestStartCutShort(t *testing.T) {
	b := newBench(t)
	for _, after := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 15 * time.Millisecond, 30 * time.Millisecond, 60 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		err := b.lab.Start(ctx, "s1", b.exe)
		cancel()
		state, stateErr := b.lab.State("s1")
		must(t, stateErr)
		if (err == nil) != (state == Running) {
			t.Errorf("Start cut short after %s: got state %s and error %v, want running or an error", after, state, err)
		}
		must(t, b.lab.Start(t.Context(), "s1", b.exe))
		b.up("s1")
		must(t, b.lab.Kill(t.Context(), "s1"))
	}
}

// TestHalfMade: whoever started the server died at the worst moment.
func TestHalfMade(t *testing.T) {
	b := newBench(t)
	must(t, netns.Create(b.lab.Namespace("s1")))
	must(t, b.lab.folders("s2"))
	must(t, b.lab.wire("s2"))
	must(t, link.DeleteLink(b.lab.Bridge()))
	f, err := createFreezer(b.lab.Namespace("s2"), func() (int, error) { return 0, ErrOff })
	must(t, err)
	must(t, f.set(true))
	b.startAll()
}

// TestAtOnce: many callers do the same and the opposite.
func TestAtOnce(t *testing.T) {
	b := newBench(t)
	var wg sync.WaitGroup
	errs := make([]error, 9)
	for i := range errs {
		wg.Go(func() {
			if i%3 == 2 {
				errs[i] = b.lab.Kill(t.Context(), "s1")
			} else {
				errs[i] = b.lab.Start(t.Context(), "s1", b.exe)
			}
		})
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	must(t, b.lab.Start(t.Context(), "s1", b.exe))
	b.up("s1")
}

// TestDeadServersNetworkIsGone: what one server's mounts hold does not keep another's network alive.
func TestDeadServersNetworkIsGone(t *testing.T) {
	b := newBench(t)
	b.startAll()
	must(t, b.lab.Kill(t.Context(), "s1"))
	for _, other := range []string{"s2", "s3"} {
		pid, err := b.lab.PID(other)
		must(t, err)
		mounts, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/mountinfo")
		must(t, err)
		if strings.Contains(string(mounts), "/run/netns/") {
			t.Errorf("mounts of %s hold a network namespace:\n%s", other, mounts)
		}
	}
	if _, err := net.InterfaceByName(b.lab.Cable("s1")); err == nil {
		t.Error("cable of a dead server is still there")
	}
}

func TestServersView(t *testing.T) {
	b := newBench(t)
	must(t, b.lab.Start(t.Context(), "s1", b.exe))
	for _, name := range users {
		if _, err := user.Lookup(name); err != nil {
			t.Errorf("user %s on a server: %v", name, err)
		}
	}
	pid, err := b.lab.PID("s1")
	must(t, err)
	script := `test "$(hostname)" = s1 && test "$(cat /proc/1/comm)" != sleep &&
		echo x >/tmp/only-here && echo y >/var/lib/trivet/mine && echo z >/run/trivet/mine &&
		test ! -e /var/lib/trivet/labs && ls /proc | grep -c '^[0-9]' && ip -4 route`
	out, err := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-a", "sh", "-c", script).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "default via 10.82.0.1 dev eth0") {
		t.Errorf("inside s1: %v\n%s", err, out)
	}
	if _, err := os.Stat("/tmp/only-here"); err == nil {
		t.Error("a server's /tmp is this machine's")
	}
	for _, kind := range []string{Lib, Run} {
		if _, err := os.Stat(b.lab.Dir("s1", kind) + "/mine"); err != nil {
			t.Errorf("file made in s1: %v", err)
		}
	}
	if out, err := exec.Command("ip", "netns", "exec", b.lab.Namespace("s1"), "ip", "-4", "-o", "addr").CombinedOutput(); !strings.Contains(string(out), "10.82.0.11/24") {
		t.Errorf("ip netns exec: %v\n%s", err, out)
	}
}

func TestStrangerIsRefused(t *testing.T) {
	newBench(t)
	out, err := exec.Command("/proc/self/exe", "test-stranger").CombinedOutput()
	must(t, err)
	if got := strings.Split(string(out), "\n"); !strings.Contains(got[0], "sudo") || !strings.Contains(got[1], "sudo") {
		t.Errorf("to one who is not root: got %q, want two hints at sudo", got)
	}
}
