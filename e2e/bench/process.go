package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"trivet/e2e"
	"trivet/internal/host"
)

// Kinds of processes besides trivet's own, which are named by their command.
const (
	kindApp      = "app"
	kindDatabase = "mariadbd"
)

// trivetKinds are trivet's own processes on each server.
var trivetKinds = []string{"lab-init", "node", "balancer", "web", "router", "monitor"}

// process is one process of one server.
type process struct {
	server, kind string
	cpu          time.Duration // that it has used since it began
	pss          int64         // bytes: its own memory, and its share of what it shares
}

// processes looks at all processes of the lab, by pid.
func processes(ctx context.Context, lab *e2e.Lab) (map[int]process, error) {
	all := map[int]process{}
	for _, server := range e2e.Servers {
		out, err := exec.CommandContext(ctx, "ip", "netns", "pids", lab.Namespace(server)).Output()
		if err != nil {
			return nil, fmt.Errorf("list processes of %s: %w", server, err)
		}
		for f := range strings.FieldsSeq(string(out)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return nil, fmt.Errorf("list processes of %s: %w", server, err)
			}
			if p, ok := look(pid); ok {
				p.server = server
				all[pid] = p
			}
		}
	}
	return all, nil
}

// look reads one process (proc(5)); it may just have ended.
func look(pid int) (process, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil || len(line) == 0 {
		return process{}, false
	}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return process{}, false
	}
	p := process{kind: kindOf(strings.Split(string(line), "\x00")), cpu: used(string(stat))}
	for l := range strings.Lines(host.Content(filepath.Join(dir, "smaps_rollup"))) {
		if kb, ok := strings.CutPrefix(l, "Pss:"); ok {
			_, _ = fmt.Sscan(kb, &p.pss)
			p.pss <<= 10
		}
	}
	return p, true
}

// kindOf names the kind of a process by its command line.
func kindOf(args []string) string {
	switch name := filepath.Base(args[0]); {
	case name == kindDatabase || name == "mysqld":
		return kindDatabase
	case !strings.HasPrefix(name, "trivet") || len(args) < 2:
		return kindApp
	case args[1] == "worker" && len(args) > 2:
		return args[2]
	}
	return args[1]
}

// used is the time that a process was on a core, in user and kernel mode: the
// fields 14 and 15 of its stat, in hundredths of a second. The name, field 2,
// may have spaces in it.
func used(stat string) time.Duration {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	var ticks int64
	for _, s := range f[11:13] {
		n, _ := strconv.ParseInt(s, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// spent is what each kind has used between two looks.
func spent(before, after map[int]process) map[string]time.Duration {
	out := map[string]time.Duration{}
	for pid, p := range after {
		out[p.kind] += p.cpu - before[pid].cpu
	}
	return out
}

// ofTrivet sums what belongs to trivet's own processes.
func ofTrivet(spent map[string]time.Duration) time.Duration {
	var sum time.Duration
	for kind, d := range spent {
		if kind != kindApp && kind != kindDatabase {
			sum += d
		}
	}
	return sum
}

// memory is a server's memory in three parts: trivet's processes, app, database.
func memory(all map[int]process, server string) (trivet, app, database int64) {
	for _, p := range all {
		switch {
		case p.server != server:
		case p.kind == kindApp:
			app += p.pss
		case p.kind == kindDatabase:
			database += p.pss
		default:
			trivet += p.pss
		}
	}
	return trivet, app, database
}
