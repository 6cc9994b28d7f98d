package app

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"trivet/internal/atomicfile"
	"trivet/internal/part"
	"trivet/internal/process"
)

// adopt finds the instances that a former node left running. Those of the
// generation that served go on serving, at once and as healthy; others were in
// the middle of a change, and are ended.
func (a *App) adopt() {
	number := a.remembered()
	generations := map[int]*generation{}
	for _, record := range a.records() {
		p, err := process.Adopt(a.cfg.Records, record)
		if errors.Is(err, process.ErrNone) {
			continue
		}
		if err != nil {
			a.cfg.Log.Error("adopt instance", "record", record, "err", err)
			continue
		}
		a.settleIn(generations, p, number)
	}
	a.removeSockets(generations)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = number
	for n, g := range generations {
		a.last = max(a.last, n)
		if n == number {
			a.serving = g
			continue
		}
		g.left, g.settled = time.Now(), true
		a.leaving = append(a.leaving, g)
	}
}

// records are the names of the instances' process records.
func (a *App) records() []string {
	files, err := filepath.Glob(filepath.Join(a.cfg.Records, recordPrefix+"*.json"))
	if err != nil {
		return nil
	}
	for i, file := range files {
		files[i] = strings.TrimSuffix(filepath.Base(file), ".json")
	}
	return files
}

// settleIn puts an adopted process into its generation.
func (a *App) settleIn(generations map[int]*generation, p *process.Process, serving int) {
	var n note
	if err := json.Unmarshal([]byte(p.Note()), &n); err != nil {
		a.cfg.Log.Error("read record of instance", "pid", p.PID(), "err", err)
		_ = p.Stop(context.Background(), syscall.SIGKILL, 0)
		return
	}
	g := generations[n.Generation]
	if g == nil {
		g = &generation{number: n.Generation, hash: n.Hash}
		generations[n.Generation] = g
	}
	i := newInstance(g, n.Index)
	i.Instance = part.Instance{Name: i.Name, Network: n.Network, Address: n.Address}
	i.process, i.up = p, n.Generation == serving
	g.instances = append(g.instances, i)
}

// removeSockets removes what instances left behind that are no more.
func (a *App) removeSockets(generations map[int]*generation) {
	used := map[string]bool{}
	for _, g := range generations {
		for _, i := range g.instances {
			used[i.Address] = true
		}
	}
	files, _ := filepath.Glob(filepath.Join(a.cfg.RunDir, "*.sock"))
	for _, file := range files {
		if !used[file] {
			_ = os.Remove(file)
		}
	}
}

// remember writes down which generation serves.
func (a *App) remember(g *generation) {
	number := 0
	if g != nil {
		number = g.number
	}
	if err := atomicfile.Write(a.servingFile(), []byte(strconv.Itoa(number)), 0o600, -1, -1); err != nil {
		a.cfg.Log.Error("remember generation", "err", err)
	}
}

// remembered is the number of the generation that served last; 0 if none did.
func (a *App) remembered() int {
	data, err := os.ReadFile(a.servingFile())
	if err != nil {
		return 0
	}
	number, _ := strconv.Atoi(string(data))
	return number
}

func (a *App) servingFile() string { return filepath.Join(a.cfg.Records, "app.generation") }
