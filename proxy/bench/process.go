package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what a peer's processes have used of the machine.
type usage struct {
	cpu          time.Duration // exact
	user, system int64         // the clock's ticks: how cpu is divided
	rss, pss     int64         // bytes; in PSS, a page of several processes is divided among them
}

// used looks at all processes of the peer's group.
func (r *running) used() (usage, error) {
	var out usage
	group := r.cmd.Process.Pid
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return out, err
	}
	found := false
	for _, path := range stats {
		f := statFields(path)
		if f == nil || f[2] != strconv.Itoa(group) {
			continue
		}
		found = true
		out.user += number(f[11])
		out.system += number(f[12])
		out.cpu += onCore(filepath.Dir(path))
		out.rss += number(f[21]) * int64(os.Getpagesize())
		out.pss += proportional(filepath.Dir(path))
	}
	if !found {
		return out, fmt.Errorf("%s has ended%s", r.peer.name, r.said())
	}
	return out, nil
}

// since is what each of n requests has cost, in microseconds in all and of user code.
func (u usage) since(before usage, n int64) (all, user float64) {
	all = float64(u.cpu-before.cpu) / float64(time.Microsecond) / float64(n)
	ticks := float64(u.user - before.user + u.system - before.system)
	return all, all * float64(u.user-before.user) / max(ticks, 1)
}

// statFields are those of proc_pid_stat(5) after the name, from the state on; nil: the process is gone.
func statFields(path string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// onCore is the time that all threads of a process were on a core, in
// nanoseconds: the first field of their schedstat.
func onCore(process string) time.Duration {
	var sum time.Duration
	threads, _ := filepath.Glob(process + "/task/*/schedstat")
	for _, path := range threads {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended
		}
		n, _, _ := strings.Cut(string(data), " ")
		sum += time.Duration(number(n))
	}
	return sum
}

// proportional is a process's PSS.
func proportional(process string) int64 {
	data, _ := os.ReadFile(process + "/smaps_rollup")
	for line := range strings.Lines(string(data)) {
		if kb, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, _, _ := strings.Cut(strings.TrimSpace(kb), " ")
			return number(n) << 10
		}
	}
	return 0
}
