package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"trivet/internal/atomicfile"
	"trivet/internal/part"
	"trivet/internal/process"
)

// search is what is known of what a former node left running.
type search struct {
	mu          sync.Mutex
	done        bool            // all of it is known
	adopted     map[string]bool // by record
	generations map[int]*generation
}

// adopt finds the instances that a former node left running. Those of the
// generation that served go on serving, at once and as healthy; others were in
// the middle of a change, and are ended. While it cannot be told of any whether
// it runs, nothing else is done, for it would be done twice: Check says so, and
// each call tries again.
func (a *App) adopt() {
	f := &a.found
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return
	}
	number, err := a.remembered()
	if err == nil {
		err = a.adoptAll(f, number)
	}
	if err == nil {
		a.removeSockets(f.generations)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.suspect(fmt.Errorf("find out which instances run: %w", err))
		a.serving = f.generations[number]
		return
	}
	f.done, a.doubt = true, nil
	a.takeOver(f.generations, number)
}

// adoptAll adopts what is recorded and was not adopted yet.
func (a *App) adoptAll(f *search, number int) error {
	records, err := a.records()
	if err != nil {
		return err
	}
	if f.generations == nil {
		f.adopted, f.generations = map[string]bool{}, map[int]*generation{}
	}
	var errs []error
	for _, record := range records {
		if f.adopted[record] {
			continue
		}
		p, err := process.Adopt(a.cfg.Records, record)
		if errors.Is(err, process.ErrNone) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		f.adopted[record] = true
		a.settleIn(f.generations, p, number)
	}
	return errors.Join(errs...)
}

// suspect keeps why it is not known what runs; a.mu is held.
func (a *App) suspect(err error) {
	if a.doubt == nil || a.doubt.Error() != err.Error() {
		a.cfg.Log.Error("adopt instances", "err", err)
	}
	a.doubt = err
}

// takeOver goes on with the generations that were found; a.mu is held.
func (a *App) takeOver(generations map[int]*generation, number int) {
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
func (a *App) records() ([]string, error) {
	files, err := os.ReadDir(a.cfg.Records)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".json"); ok && strings.HasPrefix(name, recordPrefix) {
			names = append(names, name)
		}
	}
	return names, nil
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
	a.mu.Lock()
	defer a.mu.Unlock()
	g.instances = append(g.instances, i)
}

// removeSockets removes what instances left behind that are no more.
func (a *App) removeSockets(generations map[int]*generation) {
	used := map[string]bool{}
	a.mu.Lock()
	for _, g := range generations {
		for _, i := range g.instances {
			used[i.Address] = true
		}
	}
	a.mu.Unlock()
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
func (a *App) remembered() (int, error) {
	data, err := os.ReadFile(a.servingFile())
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	number, _ := strconv.Atoi(string(data))
	return number, nil
}

func (a *App) servingFile() string { return filepath.Join(a.cfg.Records, "app.generation") }
