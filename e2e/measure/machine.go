package measure

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"trivet/e2e"
	"trivet/internal/host"
)

// Machine is what the figures hold for.
type Machine struct {
	Date      string  `json:"date"`
	Cores     int     `json:"cores"`
	MemoryGiB float64 `json:"memory_gib"`
	System    string  `json:"system"`
	Kernel    string  `json:"kernel"`
	Load1     float64 `json:"load1"` // before the run: what else the machine had to do
	Load5     float64 `json:"load5"`
	Trivet    string  `json:"trivet"`
	MariaDB   string  `json:"mariadb"`
	Go        string  `json:"go"`
}

// Look describes this machine, and the trivet and MariaDB that are measured.
func Look(ctx context.Context, lab *e2e.Lab) (Machine, error) {
	m := Machine{
		Date: time.Now().UTC().Format("2006-01-02 15:04 MST"), Cores: runtime.NumCPU(), Go: runtime.Version(),
		System: host.System(), Kernel: host.Content("/proc/sys/kernel/osrelease"),
	}
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return m, fmt.Errorf("look at memory: %w", err)
	}
	m.MemoryGiB = float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	if _, err := fmt.Sscan(host.Content("/proc/loadavg"), &m.Load1, &m.Load5); err != nil {
		return m, fmt.Errorf("look at the machine's load: %w", err)
	}
	out, err := exec.CommandContext(ctx, lab.Binary(), "version").Output()
	if err != nil {
		return m, fmt.Errorf("run %s: %w: run `make build` first", lab.Binary(), err)
	}
	m.Trivet = strings.TrimSpace(string(out))
	out, err = exec.CommandContext(ctx, "mariadbd", "--version").Output()
	if err != nil {
		return m, fmt.Errorf("run mariadbd: %w", err)
	}
	m.MariaDB = regexp.MustCompile(`\d+\.\d+\.\d+`).FindString(string(out))
	return m, nil
}
