package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkIdle measures what three idle members cost: processor time of all
// three together in percent of one core, and memory of each. It waits on
// purpose: run it with -bench Idle -benchtime 1x.
func BenchmarkIdle(b *testing.B) {
	procs, _ := startThree(b)
	for _, p := range procs {
		p.must(b, request{Op: "announce", Key: "w/" + p.conf.Name, Data: "1"})
	}
	<-time.After(5 * time.Second) // elections and first writes are over
	for b.Loop() {
		before := cpu(b, procs)
		start := time.Now()
		<-time.After(20 * time.Second)
		used := cpu(b, procs) - before
		b.ReportMetric(100*used.Seconds()/time.Since(start).Seconds(), "%core")
	}
	var most int
	for _, p := range procs {
		most = max(most, pss(b, p.cmd.Process.Pid))
	}
	b.ReportMetric(float64(most)/1024, "MB-PSS-max")
	b.ReportMetric(0, "ns/op")
}

// cpu sums what the kernel counted for each thread; the ticks of proc_pid_stat(5) are too coarse here.
func cpu(b *testing.B, procs []*proc) time.Duration {
	var sum time.Duration
	for _, p := range procs {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		for _, task := range tasks {
			stat, err := os.ReadFile(task)
			if err != nil {
				b.Fatal(err)
			}
			ns, _, _ := strings.Cut(string(stat), " ")
			n, _ := strconv.ParseInt(ns, 10, 64)
			sum += time.Duration(n)
		}
	}
	return sum
}

// pss returns the proportional memory in KiB.
func pss(b *testing.B, pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	return 0
}
