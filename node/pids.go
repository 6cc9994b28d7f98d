package node

import (
	"os"
	"path/filepath"
	"strings"

	"trivet/internal/metric"
	"trivet/internal/part"
	"trivet/internal/process"
)

// pids tells the monitor which processes run here, whoever started them: an
// adopted process is no child of this node.
type pids struct {
	gauge   *metric.GaugeVec
	records string
	told    map[string]bool // by name
}

func newPIDs(r *metric.Registry, records string) *pids {
	return &pids{
		gauge:   r.Gauge("trivet_process_pid", "Process id of node and of all that it runs.", "process"),
		records: records, told: map[string]bool{},
	}
}

// look tells of what runs now. The workers are named without the word worker.
func (p *pids) look() {
	running := map[string]int{part.Node: os.Getpid()}
	files, _ := filepath.Glob(filepath.Join(p.records, "*.json"))
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		if pid, err := process.Running(p.records, name); err == nil {
			running[strings.TrimPrefix(name, "worker-")] = pid
		}
	}
	for name, pid := range running {
		p.gauge.WithLabelValues(name).Set(float64(pid))
		p.told[name] = true
	}
	for name := range p.told {
		if _, ok := running[name]; !ok {
			p.gauge.DeleteLabelValues(name)
			delete(p.told, name)
		}
	}
}
