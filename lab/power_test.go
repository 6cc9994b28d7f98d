package lab

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestServersReachEachOther(t *testing.T) {
	b := newBench(t)
	b.startAll()
	for _, from := range servers {
		for _, to := range servers {
			b.wantEcho(b.peer(from, to))
		}
	}
	for _, s := range servers {
		b.wantState(s, Running)
		must(t, b.lab.Start(t.Context(), s, b.exe)) // again: nothing happens
	}
}

func TestCreateRefuses(t *testing.T) {
	b := newBench(t)
	tests := []struct {
		name, lab, subnet string
		servers           []string
		want              string
	}{
		{"a lab that is there", testLab, testSubnet, servers, ErrExists.Error()},
		{"a range in use", "labtest2", "10.82.0.128/25", servers, "interface trivet-labtest has 10.82.0.1/24"},
		{"a wider range in use", "labtest2", "10.82.0.0/16", servers, "interface trivet-labtest has 10.82.0.1/24"},
		{"a small range", "labtest2", "10.99.0.0/29", servers, "too small"},
		{"IPv6", "labtest2", "fd00:77::/64", servers, "IPv4"},
		{"no range", "labtest2", "0.0.0.0/0", servers, "in use"},
		{"a bad name", "../x", "10.99.0.0/24", servers, "letters and digits"},
		{"a bad server", "labtest2", "10.99.0.0/24", []string{"s1", "S 2"}, "letters, digits"},
		{"a server twice", "labtest2", "10.99.0.0/24", []string{"s1", "s1"}, "twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Create(tt.lab, netip.MustParsePrefix(tt.subnet), tt.servers)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Create: got %v, want an error with %q", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(Root, "labtest2")); err == nil {
				t.Error("Create refused, but left a folder")
			}
		})
	}
	if _, err := b.lab.State("s4"); !errors.Is(err, ErrNoServer) {
		t.Errorf("State of an unknown server: got %v, want %v", err, ErrNoServer)
	}
	if err := b.lab.Stop(t.Context(), "s1"); !errors.Is(err, ErrOff) {
		t.Errorf("Stop of a server that is off: got %v, want %v", err, ErrOff)
	}
}

func TestStartFails(t *testing.T) {
	b := newBench(t)
	must(t, os.MkdirAll(b.lab.dir("s1"), 0o700))
	must(t, b.lab.setProgram("/no/such/folder/node"))
	err := b.lab.Start(t.Context(), "s1", b.exe)
	if err == nil || !strings.Contains(err.Error(), "/no/such/folder") {
		t.Errorf("Start with a missing program: got %v, want an error that names it", err)
	}
	b.wantState("s1", Off)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, b.lab.setProgram(b.exe, "test-node"))
	if err := b.lab.Start(ctx, "s1", b.exe); !errors.Is(err, context.Canceled) {
		t.Errorf("Start with a context that ended: got %v, want %v", err, context.Canceled)
	}
	b.wantState("s1", Off)
	must(t, b.lab.Start(t.Context(), "s1", b.exe))
	b.up("s1")
}

func TestKillIsSilent(t *testing.T) {
	b := newBench(t)
	b.startAll()
	fromHere, _ := b.up("s1")
	fromPeer := b.peer("s2", "s1")
	pids, err := b.lab.Processes("s1")
	must(t, err)
	if len(pids) != 3 {
		t.Errorf("processes of s1: got %d, want init, node and orphan", len(pids))
	}
	must(t, os.WriteFile(filepath.Join(b.lab.Dir("s1", Run), "stale"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(b.lab.Dir("s1", Lib), "kept"), nil, 0o600))

	must(t, b.lab.Kill(t.Context(), "s1"))
	for _, pid := range pids {
		if processState(pid) != "X" {
			t.Errorf("process %d of s1 is still there", pid)
		}
	}
	b.wantState("s1", Off)
	b.wantSilence(fromHere)
	b.wantSilence(fromPeer)
	b.wantUnreachable("s1")
	must(t, b.lab.Kill(t.Context(), "s1")) // again: nothing to do

	must(t, b.lab.Start(t.Context(), "s1", b.exe))
	b.up("s1")
	if _, err := os.Stat(filepath.Join(b.lab.Dir("s1", Run), "stale")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("file in run after power on: got %v, want none", err)
	}
	if _, err := os.Stat(filepath.Join(b.lab.Dir("s1", Lib), "kept")); err != nil {
		t.Errorf("file in lib after power on: %v", err)
	}
}

func TestStopFreezes(t *testing.T) {
	b := newBench(t)
	b.startAll()
	conn, _ := b.up("s2")
	must(t, b.lab.Stop(t.Context(), "s2"))
	must(t, b.lab.Stop(t.Context(), "s2"))
	b.wantState("s2", Frozen)
	_, err := conn.Write([]byte("ping"))
	must(t, err)
	b.wantSilence(conn)
	must(t, b.lab.Start(t.Context(), "s2", b.exe))
	b.wantState("s2", Running)
	got := make([]byte, 4)
	must(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	if _, err := conn.Read(got); err != nil || string(got) != "ping" {
		t.Errorf("after the thaw: got %q, %v, want the echo", got, err)
	}
	must(t, b.lab.Stop(t.Context(), "s2"))
	must(t, b.lab.Kill(t.Context(), "s2"))
	b.wantState("s2", Off)
}

func TestCutAndHeal(t *testing.T) {
	b := newBench(t)
	b.startAll()
	conn, _ := b.up("s3")
	must(t, b.lab.Cut(t.Context(), "s3"))
	must(t, b.lab.Cut(t.Context(), "s3"))
	b.wantState("s3", Cut)
	b.wantSilence(conn)
	b.wantUnreachable("s3")
	b.wantEcho(b.peer("s1", "s2"))
	must(t, b.lab.Heal(t.Context(), "s3"))
	b.wantState("s3", Running)
	b.up("s3")
	b.wantEcho(conn)
}

func TestNodeIsRestarted(t *testing.T) {
	b := newBench(t)
	must(t, b.lab.Start(t.Context(), "s1", b.exe))
	_, node := b.up("s1")
	orphan := b.orphan("s1")
	survivor := b.outside("s1", orphan)
	for range 3 {
		must(t, syscall.Kill(b.outside("s1", node), syscall.SIGKILL))
		var anew string
		b.await("another node", func() bool { _, anew = b.up("s1"); return anew != node })
		node = anew
	}
	if got := b.outside("s1", orphan); got != survivor || got == 0 {
		t.Errorf("what node left running: got process %d, want %d still", got, survivor)
	}
	must(t, syscall.Kill(survivor, syscall.SIGKILL))
	b.await("the orphan to be reaped", func() bool { return processState(survivor) == "X" })
}

func TestShutdownIsClean(t *testing.T) {
	b := newBench(t)
	b.startAll()
	must(t, b.lab.Stop(t.Context(), "s2")) // frozen: must go on to stop cleanly
	for _, s := range []string{"s1", "s2"} {
		must(t, b.lab.Shutdown(t.Context(), s))
		b.wantState(s, Off)
		if _, err := os.Stat(filepath.Join(b.lab.Dir(s, Lib), "clean")); err != nil {
			t.Errorf("%s's word of a clean stop: %v", s, err)
		}
	}
	must(t, b.lab.Shutdown(t.Context(), "s1"))
	must(t, b.lab.Remove(t.Context(), true))
	kept, err := Open(testLab)
	must(t, err)
	if got, want := kept.Address("s3"), b.lab.Address("s3"); got != want {
		t.Errorf("address of s3 in the kept lab: got %s, want %s", got, want)
	}
	must(t, kept.Start(t.Context(), "s1", b.exe))
	b.up("s1")
	if _, err := os.Stat(filepath.Join(b.lab.Dir("s1", Lib), "clean")); err != nil {
		t.Errorf("data that Remove was to keep: %v", err)
	}
}

// TestCrash: every server's processes die from outside, as when the machine ran out of memory.
func TestCrash(t *testing.T) {
	b := newBench(t)
	b.startAll()
	for _, s := range servers {
		pid, err := b.lab.PID(s)
		must(t, err)
		must(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	for _, s := range servers {
		b.await(s+" to be off", func() bool { state, err := b.lab.State(s); return err == nil && state == Off })
	}
	must(t, b.lab.Start(t.Context(), "s1", b.exe))
	b.up("s1")
	must(t, b.lab.Remove(t.Context(), false))
	l, err := Create(testLab, netip.MustParsePrefix(testSubnet), servers)
	must(t, err)
	must(t, l.setProgram(b.exe, "test-node"))
	b.startAll()
}
