package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"trivet/e2e"
	"trivet/e2e/measure"
)

const (
	goalUp     = 12.0  // seconds until three nodes are synced, nothing there
	goalMemory = 200.0 // MB of mariadbd
	idle       = 3 * time.Second
)

// bringUp measures how long three nodes take that have nothing.
func (b *bench) bringUp(ctx context.Context) error {
	say("up")
	if _, err := b.lab.Run(ctx, "down"); err != nil { // what an interrupted run left
		return err
	}
	begun := time.Now()
	synced := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var when time.Time
	go func() {
		var err error
		when, err = b.synced(ctx, len(e2e.Servers), e2e.Servers...)
		synced <- err
	}()
	if _, err := b.lab.Up(ctx); err != nil {
		return err
	}
	all := time.Since(begun)
	if err := <-synced; err != nil {
		return err
	}
	const group = "first bring-up"
	b.report.Add(group, "three nodes synced, after `trivet up` began", when.Sub(begun).Seconds(), measure.Seconds, goalUp)
	b.report.Add(group, "`trivet up` as a whole", all.Seconds(), measure.Seconds, 0)
	return nil
}

// memoryFirst is looked at while nothing has happened yet.
func (b *bench) memoryFirst(ctx context.Context) error {
	return b.memory(ctx, "memory of idle servers (PSS)")
}

// memoryLoaded is looked at after the load.
func (b *bench) memoryLoaded(ctx context.Context) error {
	return b.memory(ctx, "memory after the load (PSS)")
}

func (b *bench) memory(ctx context.Context, group string) error {
	if err := pause(ctx, idle); err != nil {
		return err
	}
	all, err := measure.Processes(ctx, b.lab)
	if err != nil {
		return err
	}
	for _, kind := range []string{measure.KindDatabase, "router"} {
		goal := map[string]float64{measure.KindDatabase: goalMemory}[kind]
		for _, server := range e2e.Servers {
			for _, p := range all {
				if p.Server == server && p.Kind == kind {
					b.report.Add(group, server+" "+kind, float64(p.PSS)/1e6, measure.Megabytes, goal)
					if kind == measure.KindDatabase {
						b.report.Add(group, "  of that, pages of files", float64(p.Mapped)/1e6, measure.Megabytes, 0)
					}
				}
			}
		}
	}
	return nil
}

// joins measures how long a node takes that comes back, with its data and without.
func (b *bench) joins(ctx context.Context) error {
	writer, err := b.writer(ctx)
	if err != nil {
		return err
	}
	server := other(writer)
	data := filepath.Join(b.lab.Dir(server, "lib"), "database")
	const group = "join of a server after power off, from power on to synced"
	for _, j := range []struct {
		name string
		wipe bool
	}{{"its data there", false}, {"its data gone", true}} {
		say("join: %s", j.name)
		before := identity(data)
		took, err := b.join(ctx, server, writer, func() error {
			if j.wipe {
				return os.RemoveAll(data)
			}
			return nil
		})
		if err != nil {
			return err
		}
		name := j.name + ", by a full copy of"
		if identity(data) == before {
			name = j.name + ", by what it missed (IST);"
		}
		b.report.Add(group, fmt.Sprintf("%s %.0f MB", name, float64(size(data))/1e6), took.Seconds(), measure.Seconds, 0)
	}
	return nil
}

// join takes the server's power, has others write meanwhile, and gives it back.
func (b *bench) join(ctx context.Context, server, writer string, off func() error) (time.Duration, error) {
	if _, err := b.lab.Run(ctx, "lab", "kill", server); err != nil {
		return 0, err
	}
	if err := off(); err != nil {
		return 0, err
	}
	if _, err := b.load(ctx, b.routerSocket(writer), works[1], 4); err != nil {
		return 0, err
	}
	begun := time.Now()
	started := make(chan error, 1)
	go func() {
		_, err := b.lab.Run(ctx, "lab", "start", server)
		started <- err
	}()
	when, err := b.synced(ctx, len(e2e.Servers), server)
	if e := <-started; err == nil {
		err = e
	}
	return when.Sub(begun), err
}

// identity is that of a data folder's first file, which a full copy replaces.
func identity(data string) uint64 {
	info, err := os.Stat(filepath.Join(data, "ibdata1"))
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// size is that of a folder's tables.
func size(data string) (sum int64) {
	for _, pattern := range []string{"ibdata1", "*/*.ibd", "*/*.MAD", "*/*.MAI"} {
		files, _ := filepath.Glob(filepath.Join(data, pattern))
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				sum += info.Size()
			}
		}
	}
	return sum
}

// oneNode measures the load once more, with the two other nodes gone in an
// orderly way. Their supervisors are stopped meanwhile.
func (b *bench) oneNode(ctx context.Context) error {
	writer, err := b.writer(ctx)
	if err != nil {
		return err
	}
	first := other(writer)
	second := other(writer, first)
	all, err := measure.Processes(ctx, b.lab)
	if err != nil {
		return err
	}
	signal := func(server, kind string, s syscall.Signal) {
		for pid, p := range all {
			if p.Kind == kind && p.Server == server {
				_ = syscall.Kill(pid, s)
			}
		}
	}
	for i, server := range []string{first, second} {
		signal(server, "node", syscall.SIGSTOP)
		defer signal(server, "node", syscall.SIGCONT)
		signal(server, measure.KindDatabase, syscall.SIGTERM)
		if _, err := b.synced(ctx, len(e2e.Servers)-1-i, writer); err != nil {
			return fmt.Errorf("have %s leave: %w", server, err)
		}
	}
	return b.loads(ctx, 1, b.socket(writer), b.routerSocket(writer))
}
