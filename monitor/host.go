package monitor

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/prometheus/procfs"

	"trivet/internal/overview"
)

// host measures the server as a whole, from /proc (proc(5)).
type host struct {
	fs     procfs.FS
	disk   string // a folder on the disk whose space is measured
	cpu    procfs.CPUStat
	memory uint64 // bytes that there are
	shared bool   // the machine runs other servers too, as in the lab
}

// firstNamespace is the machine's own PID namespace (PROC_PID_INIT_INO in the
// kernel's include/linux/proc_ns.h).
const firstNamespace = "pid:[4026531836]"

func newHost(disk string) (*host, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	return &host{fs: fs, disk: disk, shared: err == nil && namespace != firstNamespace}, nil
}

// measure fills p and appends the series. What cannot be read is left out.
func (h *host) measure(k *sink, g *gauges, p *overview.Point) {
	set := func(name string, v float64) { g.set(k, name, "process", "host", v) }
	if stat, err := h.fs.Stat(); err == nil {
		p.CPU = float32(busy(h.cpu, stat.CPUTotal))
		h.cpu = stat.CPUTotal
		set("trivet_host_cpu_percent", float64(p.CPU))
		set("trivet_host_iowait_seconds_total", stat.CPUTotal.Iowait)
	}
	if m, err := h.fs.Meminfo(); err == nil && m.MemTotalBytes != nil && m.MemAvailableBytes != nil {
		total, free := float64(*m.MemTotalBytes), float64(*m.MemAvailableBytes)
		p.Memory = float32(100 * (total - free) / total)
		h.memory = *m.MemTotalBytes
		set("trivet_host_memory_bytes", total)
		set("trivet_host_memory_available_bytes", free)
	}
	if l, err := h.fs.LoadAvg(); err == nil {
		set("trivet_host_load1", l.Load1)
	}
	h.space(set)
	h.network(k, g)
}

// narrow makes p tell of this server on a shared machine, where /proc tells of
// the whole: such a server is the sum of its processes.
func (h *host) narrow(p *overview.Point, list []overview.Process) {
	if !h.shared || h.memory == 0 {
		return
	}
	p.CPU, p.Memory = 0, 0
	for _, o := range list {
		p.CPU += o.CPU / float32(runtime.NumCPU())
		p.Memory += float32(100 * float64(o.Memory) / float64(h.memory))
	}
}

// busy is the share of time in percent that all cores worked between two readings.
func busy(a, b procfs.CPUStat) float64 {
	sum := func(c procfs.CPUStat) float64 {
		return c.User + c.Nice + c.System + c.Idle + c.Iowait + c.IRQ + c.SoftIRQ + c.Steal
	}
	total := sum(b) - sum(a)
	if sum(a) == 0 || total <= 0 {
		return 0
	}
	idle := b.Idle + b.Iowait - a.Idle - a.Iowait
	return min(max(100*(1-idle/total), 0), 100)
}

func (h *host) space(set func(string, float64)) {
	var fs syscall.Statfs_t
	if syscall.Statfs(h.disk, &fs) != nil {
		return
	}
	set("trivet_host_disk_bytes", float64(fs.Blocks)*float64(fs.Bsize))
	set("trivet_host_disk_available_bytes", float64(fs.Bavail)*float64(fs.Bsize))
}

func (h *host) network(k *sink, g *gauges) {
	devices, err := h.fs.NetDev()
	if err != nil {
		return
	}
	for name, d := range devices {
		if name == "lo" {
			continue
		}
		g.set(k, "trivet_host_received_bytes_total", "device", name, float64(d.RxBytes))
		g.set(k, "trivet_host_sent_bytes_total", "device", name, float64(d.TxBytes))
	}
}

// tick is the unit of CPU time in /proc/pid/stat, USER_HZ: 1/100 s on all that Linux runs on.
const tick = 0.01

// processes measures the processes of this server that node says it runs.
type processes struct {
	fs    procfs.FS
	known map[int]*running
}

type running struct {
	name    string
	start   uint64  // guards against a pid used twice
	seconds float64 // CPU time
}

// add begins to measure the process pid, if it is there and new.
func (p *processes) add(pid int, name string) {
	if p.known[pid] != nil {
		return
	}
	proc, err := p.fs.Proc(pid)
	if err != nil {
		return
	}
	stat, err := proc.Stat()
	if err != nil {
		return
	}
	p.known[pid] = &running{name: name, start: stat.Starttime, seconds: tick * float64(stat.UTime+stat.STime)}
}

// measure appends the series and returns the processes, those of one name together.
func (p *processes) measure(k *sink, g *gauges, elapsed time.Duration) []overview.Process {
	var out []overview.Process
	index := map[string]int{}
	for pid, r := range p.known {
		stat, ok := p.stat(pid, r)
		if !ok {
			delete(p.known, pid)
			continue
		}
		i, ok := index[r.name]
		if !ok {
			i = len(out)
			index[r.name] = i
			out = append(out, overview.Process{Name: r.name})
		}
		used := tick * float64(stat.UTime+stat.STime)
		out[i].CPU += float32(100 * (used - r.seconds) / elapsed.Seconds())
		out[i].Memory += int64(stat.ResidentMemory())
		r.seconds = used
	}
	for _, o := range out {
		g.set(k, "trivet_process_cpu_percent", "process", o.Name, float64(o.CPU))
		g.set(k, "trivet_process_resident_bytes", "process", o.Name, float64(o.Memory))
	}
	return out
}

func (p *processes) stat(pid int, r *running) (procfs.ProcStat, bool) {
	proc, err := p.fs.Proc(pid)
	if err != nil {
		return procfs.ProcStat{}, false
	}
	stat, err := proc.Stat()
	if err != nil || stat.Starttime != r.start {
		return procfs.ProcStat{}, false
	}
	return stat, true
}
