package measure

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
	KindApp      = "app"
	KindDatabase = "mariadbd"
)

// TrivetKinds are trivet's own processes on each server.
var TrivetKinds = []string{"lab-init", "node", "balancer", "web", "router", "monitor"}

// Process is one process of one server.
type Process struct {
	Server, Kind string
	CPU          time.Duration // that it has used since it began
	PSS          int64         // bytes: its own memory, and its share of what it shares
	Mapped       int64         // bytes of that which are of files: the kernel can write them out and take them back
}

// Processes looks at all processes of the lab, by pid.
func Processes(ctx context.Context, lab *e2e.Lab) (map[int]Process, error) {
	all := map[int]Process{}
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
				p.Server = server
				all[pid] = p
			}
		}
	}
	return all, nil
}

// look reads one process (proc(5)); it may just have ended.
func look(pid int) (Process, bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil || len(line) == 0 {
		return Process{}, false
	}
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Process{}, false
	}
	p := Process{Kind: kindOf(strings.Split(string(line), "\x00")), CPU: used(string(stat))}
	for l := range strings.Lines(host.Content(filepath.Join(dir, "smaps_rollup"))) {
		if kb, ok := strings.CutPrefix(l, "Pss:"); ok {
			p.PSS = kilobytes(kb)
		}
		if kb, ok := strings.CutPrefix(l, "Pss_File:"); ok {
			p.Mapped = kilobytes(kb)
		}
	}
	return p, true
}

// kilobytes reads a number of them, as bytes.
func kilobytes(text string) int64 {
	var n int64
	_, _ = fmt.Sscan(text, &n)
	return n << 10
}

// kindOf names the kind of a process by its command line.
func kindOf(args []string) string {
	switch name := filepath.Base(args[0]); {
	case name == KindDatabase || name == "mysqld":
		return KindDatabase
	case !strings.HasPrefix(name, "trivet") || len(args) < 2:
		return KindApp
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

// Spent is what each kind has used between two looks.
func Spent(before, after map[int]Process) map[string]time.Duration {
	out := map[string]time.Duration{}
	for pid, p := range after {
		out[p.Kind] += p.CPU - before[pid].CPU
	}
	return out
}

// OfTrivet sums what belongs to trivet's own processes.
func OfTrivet(spent map[string]time.Duration) time.Duration {
	var sum time.Duration
	for kind, d := range spent {
		if kind != KindApp && kind != KindDatabase {
			sum += d
		}
	}
	return sum
}

// Memory is a server's memory in three parts: trivet's processes, app, database.
func Memory(all map[int]Process, server string) (trivet, app, database int64) {
	for _, p := range all {
		switch {
		case p.Server != server:
		case p.Kind == KindApp:
			app += p.PSS
		case p.Kind == KindDatabase:
			database += p.PSS
		default:
			trivet += p.PSS
		}
	}
	return trivet, app, database
}
