package monitor

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/storage"

	"trivet/internal/overview"
)

// lookEvery is how often the collector looks for sockets that came or went.
const lookEvery = 5 * time.Second

// collector measures this server once a second. It is used by one goroutine.
type collector struct {
	server  string
	dir     string // of the metrics sockets
	store   *Store
	host    *host
	procs   *processes
	gauges  *gauges
	targets map[string]*target // by socket
	looked  time.Time
	last    time.Time
	dropped func(n int) // counts samples that the store refused
}

// newCollector returns the collector of that server.
func newCollector(server, dir string, store *Store, dropped func(int)) (*collector, error) {
	h, err := newHost(store.dir)
	if err != nil {
		return nil, err
	}
	return &collector{
		server: server, dir: dir, store: store, host: h, dropped: dropped,
		procs:   &processes{fs: h.fs, known: map[int]*running{}},
		gauges:  &gauges{server: server, known: map[gauge]*series{}},
		targets: map[string]*target{},
	}, nil
}

// collect measures the second that ends at now.
func (c *collector) collect(ctx context.Context, now time.Time) overview.Frame {
	gone := c.look(now)
	c.fetch(ctx, now)
	var f overview.Frame
	c.store.Append(ctx, func(a storage.Appender, generation int) {
		k := &sink{appender: a, generation: generation, time: now.UnixMilli()}
		for _, t := range gone {
			t.close(k)
		}
		f = c.measure(k, now)
		c.dropped(k.dropped)
	})
	c.last = now
	return f
}

// measure hands all there is to k and sums it up.
func (c *collector) measure(k *sink, now time.Time) overview.Frame {
	f := overview.Frame{Point: overview.Point{Time: now.Unix()}}
	var sum totals
	for _, t := range c.targets {
		if t.err == nil && t.body.Len() > 0 {
			t.take(k, c.server, now, &sum)
		}
	}
	sum.fill(&f.Point)
	f.Watched = sum.watched
	c.host.measure(k, c.gauges, &f.Point)
	if c.last.IsZero() {
		c.last = now.Add(-time.Second)
	}
	for pid, name := range sum.pids {
		c.procs.add(pid, name)
	}
	f.Processes = c.procs.measure(k, c.gauges, now.Sub(c.last))
	c.host.narrow(&f.Point, f.Processes)
	return f
}

// fetch reads all targets at the same time.
func (c *collector) fetch(ctx context.Context, now time.Time) {
	var wg sync.WaitGroup
	for _, t := range c.targets {
		wg.Go(func() { t.fetch(ctx, now) })
	}
	wg.Wait()
}

// look finds the sockets that came, and returns the targets that went.
func (c *collector) look(now time.Time) (gone []*target) {
	if now.Sub(c.looked) < lookEvery && !now.Before(c.looked) {
		return nil
	}
	c.looked = now
	there := map[string]bool{}
	for _, path := range sockets(c.dir) {
		there[path] = true
		if c.targets[path] == nil {
			c.targets[path] = newTarget(strings.TrimSuffix(filepath.Base(path), ".sock"), path)
		}
	}
	for path, t := range c.targets {
		if !there[path] {
			gone = append(gone, t)
			delete(c.targets, path)
		}
	}
	return gone
}

// retiring stands in the name of a process that has handed over to another,
// between the name that both have and its pid.
const retiring = "-retiring-"

// maxRetiring is how many former processes of one name are read.
const maxRetiring = 4

// sockets are those of the processes: one for each name, in dir itself or in
// the folder of that name, with those of a few that had the name before.
// Another name in a process's folder would be a process that passes for
// another, and is not read.
func sockets(dir string) []string {
	paths, _ := filepath.Glob(filepath.Join(dir, "*.sock"))
	inside, _ := filepath.Glob(filepath.Join(dir, "*", "*.sock"))
	former := map[string]int{}
	for _, path := range inside {
		name, pid, retires := strings.Cut(strings.TrimSuffix(filepath.Base(path), ".sock"), retiring)
		if name != filepath.Base(filepath.Dir(path)) {
			continue
		}
		if _, err := strconv.ParseUint(pid, 10, 32); retires && (err != nil || former[name] == maxRetiring) {
			continue
		}
		if retires {
			former[name]++
		}
		paths = append(paths, path)
	}
	return paths
}
