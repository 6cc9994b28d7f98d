package lab

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestFreezers tries every kind that this machine has on a process in a PID namespace of its own.
func TestFreezers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes control groups")
	}
	groups, err := cgroups("trivet-labtest-freezer")
	must(t, err)
	for _, c := range groups {
		t.Run(c.file, func(t *testing.T) {
			if err := os.Mkdir(c.dir, 0o755); err != nil {
				t.Skipf("needs a control group: %v", err)
			}
			tryFreezer(t, sleeper(t), c)
		})
	}
	t.Run("signals", func(t *testing.T) {
		pid := sleeper(t)
		tryFreezer(t, pid, stopper{func() (int, error) { return pid, nil }})
	})
}

func TestStopperSparesThisMachine(t *testing.T) {
	if _, err := (stopper{func() (int, error) { return os.Getpid(), nil }}).processes(); err == nil {
		t.Error("stopper for a process in this PID namespace: got no error, want a refusal")
	}
}

func sleeper(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "test-orphan")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func tryFreezer(t *testing.T, pid int, f freezer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), freezeTimeout)
	defer cancel()
	must(t, f.join(pid))
	for _, frozen := range []bool{true, false} {
		must(t, f.set(frozen))
		err := until(ctx, func() (bool, error) { is, err := f.isFrozen(); return is == frozen, err })
		if err != nil {
			t.Errorf("freeze %t: %v", frozen, err)
		}
	}
	must(t, killRest(ctx, f))
	must(t, f.remove(ctx))
}
