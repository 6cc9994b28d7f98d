package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A freezer holds all of a server's processes still, without their knowing.
type freezer interface {
	join(pid int) error           // pid, and all that it starts, belongs to it from now on
	set(frozen bool) error        // begins, or goes on; isFrozen says when it is done
	isFrozen() (bool, error)      // all of them stand still
	processes() ([]int, error)    // that belong to it
	remove(context.Context) error // when no process belongs to it any more
}

// cgroup is a freezer by control group: cgroup v2's cgroup.freeze or v1's
// freezer controller (kernel documentation admin-guide/cgroup-v2.rst and
// cgroup-v1/freezer-subsystem.rst).
type cgroup struct {
	dir            string
	file           string // to write to
	freeze, thaw   string // what to write
	state, isState string // file to read, and the line in it that says frozen
}

// createFreezer makes the best freezer that this machine has.
func createFreezer(name string, init func() (int, error)) (freezer, error) {
	all, err := cgroups(name)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if err := os.Mkdir(c.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			continue
		}
		if _, err := os.Stat(filepath.Join(c.dir, c.file)); err == nil {
			return c, nil
		}
		_ = os.Remove(c.dir)
	}
	return stopper{init}, nil
}

// openFreezer finds the freezer that createFreezer made.
func openFreezer(name string, init func() (int, error)) (freezer, error) {
	all, err := cgroups(name)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if _, err := os.Stat(c.dir); err == nil {
			return c, nil
		}
	}
	return stopper{init}, nil
}

// cgroups lists the control groups of that name that could be, the best first.
func cgroups(name string) ([]cgroup, error) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look for control groups: %w", err)
	}
	defer func() { _ = mounts.Close() }()
	var v1, v2 []cgroup
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		// proc_pid_mountinfo(5): … (5) mount point … - (1) type (2) source (3) options
		before, after, _ := strings.Cut(lines.Text(), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(g) < 3 {
			continue
		}
		dir := filepath.Join(f[4], name)
		switch {
		case g[0] == "cgroup2":
			v2 = append(v2, cgroup{dir, "cgroup.freeze", "1", "0", "cgroup.events", "frozen 1"})
		case g[0] == "cgroup" && slices.Contains(strings.Split(g[2], ","), "freezer"):
			v1 = append(v1, cgroup{dir, "freezer.state", "FROZEN", "THAWED", "freezer.state", "FROZEN"})
		}
	}
	return append(v2, v1...), lines.Err()
}

func (c cgroup) join(pid int) error {
	return c.write("cgroup.procs", strconv.Itoa(pid))
}

func (c cgroup) set(frozen bool) error {
	if frozen {
		return c.write(c.file, c.freeze)
	}
	return c.write(c.file, c.thaw)
}

func (c cgroup) write(file, value string) error {
	return os.WriteFile(filepath.Join(c.dir, file), []byte(value), 0o644)
}

func (c cgroup) isFrozen() (bool, error) {
	data, err := os.ReadFile(filepath.Join(c.dir, c.state))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return slices.Contains(strings.Split(string(data), "\n"), c.isState), err
}

func (c cgroup) processes() ([]int, error) {
	data, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var pids []int
	for _, word := range strings.Fields(string(data)) {
		// 0 stands for a process that this one may not see; as an argument of kill it means something else.
		if pid, err := strconv.Atoi(word); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// remove removes the group and those that were made in it.
func (c cgroup) remove(ctx context.Context) error {
	return until(ctx, func() (bool, error) {
		err := removeGroups(c.dir)
		if errors.Is(err, unix.EBUSY) {
			return false, nil
		}
		return err == nil, err
	})
}

// removeGroups removes control groups from the leaves up; the files in them are no files.
func removeGroups(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeGroups(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove control group %s: %w", dir, err)
	}
	return nil
}

// stopper is a freezer by SIGSTOP to every process in the PID namespace of
// the process that init names. Unlike a control group the processes' parents
// can see it.
type stopper struct{ init func() (int, error) }

func (s stopper) join(int) error               { return nil }
func (s stopper) remove(context.Context) error { return nil }

func (s stopper) set(frozen bool) error {
	sig := syscall.SIGCONT
	if frozen {
		sig = syscall.SIGSTOP
	}
	pids, err := s.processes()
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return err
}

// isFrozen reports whether all stand still.
func (s stopper) isFrozen() (bool, error) {
	pids, err := s.processes()
	if err != nil || len(pids) == 0 {
		return false, err
	}
	for _, pid := range pids {
		if state := processState(pid); !ended(pid) && state != "T" && state != "t" {
			return false, nil
		}
	}
	return true, nil
}

func (s stopper) processes() ([]int, error) {
	init, err := s.init()
	if errors.Is(err, ErrOff) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return processesWith(init)
}

// processesWith lists the processes in the PID namespace of process pid, which
// must not be this process's own; those that have ended do not count, even if
// their parents have not asked for them yet.
func processesWith(pid int) ([]int, error) {
	want, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if own, err := os.Readlink("/proc/self/ns/pid"); err != nil || own == want {
		return nil, fmt.Errorf("process %d is in no PID namespace of its own", pid)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, dir := range dirs {
		if got, err := os.Readlink(dir + "/ns/pid"); err != nil || got != want {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && !ended(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func ended(pid int) bool {
	state := processState(pid)
	return state == "X" || state == "Z"
}

// processState is field 3 of /proc/pid/stat; "X" when the process is gone.
func processState(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := strings.LastIndex(string(data), ") ")
	if err != nil || i < 0 || i+3 > len(data) {
		return "X"
	}
	return string(data[i+2 : i+3])
}
