package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"trivet/internal/part"
	"trivet/internal/process"
	"trivet/site"
)

// recordPrefix begins the names of the instances' process records.
const recordPrefix = "app-"

// note is kept in an instance's process record, for the node that adopts it.
type note struct {
	Generation int    `json:"generation"`
	Index      int    `json:"index"`
	Hash       string `json:"hash"`
	Network    string `json:"network"`
	Address    string `json:"address"`
}

// supervise keeps i running until own ends, and then ends it. When ctx, of
// which own is a part, ends, the process is left to go on by itself.
func (a *App) supervise(ctx, own context.Context, i *instance) {
	back := process.Backoff{Min: 200 * time.Millisecond, Max: 10 * time.Second}
	for own.Err() == nil {
		began := time.Now()
		p, err := a.begin(i)
		if err == nil {
			err = a.watch(own, i, p)
		}
		if own.Err() != nil {
			break
		}
		again := a.fell(i, err)
		a.finish(ctx, i, p)
		if !again {
			break
		}
		if time.Since(began) > time.Minute {
			back.Reset()
		}
		_ = back.Wait(own)
	}
	if ctx.Err() == nil {
		a.leaveOff(ctx, i)
	}
}

// leaveOff ends what runs of i, for good.
func (a *App) leaveOff(ctx context.Context, i *instance) {
	a.mu.Lock()
	p := i.process
	a.mu.Unlock()
	a.finish(ctx, i, p)
	if ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	i.gone, i.up = true, false
	a.mu.Unlock()
	a.changed()
}

// begin returns i's process: the one that was adopted, or a new one.
func (a *App) begin(i *instance) (*process.Process, error) {
	a.mu.Lock()
	p, plan := i.process, i.generation.plan
	a.mu.Unlock()
	if p != nil {
		return p, nil
	}
	where, err := a.place(i.Name, plan.listen)
	if err != nil {
		return nil, err
	}
	p, err = a.start(i, plan, where)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	i.process, i.Instance = p, where
	a.mu.Unlock()
	return p, nil
}

// place finds where an instance is to listen.
func (a *App) place(name, listen string) (part.Instance, error) {
	if listen == site.ListenPort {
		port, err := freePort()
		return part.Instance{Name: name, Network: "tcp", Address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}, err
	}
	path := filepath.Join(a.cfg.RunDir, name+".sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return part.Instance{}, fmt.Errorf("remove former socket: %w", err)
	}
	return part.Instance{Name: name, Network: "unix", Address: path}, nil
}

// freePort finds a port below the range from which the kernel takes ports for
// outgoing connections (32768 up), so that none of those takes it meanwhile.
func freePort() (int, error) {
	const low, high = 20000, 32000
	for range 100 {
		port := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("find a free port between %d and %d", low, high)
}

func (a *App) start(i *instance, p *plan, where part.Instance) (*process.Process, error) {
	program, err := p.program(isFile)
	if err != nil {
		return nil, err
	}
	env := append([]string{"TRIVET_INSTANCE=" + where.Name}, p.env...)
	if where.Network == "unix" {
		env = append(env, "SOCKET="+where.Address)
	} else {
		_, port, _ := net.SplitHostPort(where.Address)
		env = append(env, "PORT="+port)
	}
	text, err := json.Marshal(note{
		Generation: i.generation.number, Index: i.index, Hash: p.hash, Network: where.Network, Address: where.Address,
	})
	if err != nil {
		return nil, err
	}
	return process.Start(a.cfg.Records, process.Spec{
		Name: recordPrefix + where.Name, Path: program, Args: p.run[1:], Env: env, Dir: p.dir, User: a.cfg.User, Confine: true,
		Log: a.log(), Note: string(text),
		Umask: 0o007, // web connects to the socket by its group
	})
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// watch checks i until its process has ended, has to be ended, or ctx ends.
func (a *App) watch(ctx context.Context, i *instance, p *process.Process) error {
	c := newChecker(i.Instance)
	defer c.close()
	s := streak{began: time.Now()}
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-p.Done():
			return a.exit(p)
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		a.mu.Lock()
		h, domain := a.health, a.domain
		a.mu.Unlock()
		err := c.get(ctx, domain, h)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := a.judge(i, &s, h, err); err != nil {
			return err
		}
		t.Reset(s.pace(h))
	}
}

// exit says how a process ended, with the last line that the app wrote.
func (a *App) exit(p *process.Process) error {
	how := "exited by itself"
	if err := p.Err(); err != nil {
		how = "exited: " + err.Error()
	}
	if line := lastLine(a.log()); line != "" {
		how += ": " + line
	}
	return errors.New(how)
}

// judge takes the outcome of a check; an error means that i has to be started anew.
func (a *App) judge(i *instance, s *streak, h site.Health, err error) error {
	s.count(err)
	a.mu.Lock()
	before, why := i.up, i.why
	switch {
	case err != nil && !i.up:
		i.why = "is not healthy yet: " + err.Error()
	case err == nil && s.good >= h.Rise:
		i.up, i.fell, i.why, s.up = true, false, "", true
	}
	s.up = s.up || i.up
	up, differs := i.up, i.up != before || i.why != why
	a.mu.Unlock()
	if differs {
		a.changed()
	}
	switch {
	case up && s.bad >= h.Fall:
		return fmt.Errorf("is not healthy: %w", err)
	case !up && time.Since(s.began) > startLimit:
		return fmt.Errorf("was not healthy within %s: %w", startLimit, err)
	}
	return nil
}

// fell notes that i's process ended or has to be ended, and reports whether another may be started.
func (a *App) fell(i *instance, err error) bool {
	a.cfg.Log.Error("instance fell", "instance", i.Name, "err", err)
	a.mu.Lock()
	i.up, i.fell, i.why = false, true, err.Error()
	again := i.generation.plan != nil
	a.mu.Unlock()
	a.changed()
	return again
}

// finish ends i's process, if there is one, with the site's grace. When ctx
// ends meanwhile it is left alone: it has been told to end.
func (a *App) finish(ctx context.Context, i *instance, p *process.Process) {
	if p == nil {
		return
	}
	a.mu.Lock()
	grace := a.grace
	a.mu.Unlock()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		a.cfg.Log.Error("end instance", "instance", i.Name, "err", err)
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-p.Done():
	case <-t.C:
		a.cfg.Log.Warn("instance did not finish in time", "instance", i.Name, "grace", grace)
	case <-ctx.Done():
		return
	}
	// What it may have left of its group dies too, and the record goes.
	if err := p.Stop(context.WithoutCancel(ctx), syscall.SIGKILL, 0); err != nil {
		a.cfg.Log.Error("end instance", "instance", i.Name, "err", err)
	}
	a.mu.Lock()
	i.process = nil
	network, address := i.Network, i.Address
	a.mu.Unlock()
	if network == "unix" {
		_ = os.Remove(address)
	}
}

func (a *App) log() string { return filepath.Join(a.cfg.LogDir, "app.log") }
