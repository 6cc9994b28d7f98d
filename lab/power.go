package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"trivet/internal/netns"
	"trivet/internal/process"
)

// State is how a server is.
type State string

// The states of a server.
const (
	Off     State = "off"
	Running State = "running"
	Frozen  State = "frozen" // by Stop; it may be cut as well
	Cut     State = "cut"    // running, its cable unplugged
)

// How long things may take.
const (
	startTimeout  = 15 * time.Second // until init says that the server's folders are in place
	freezeTimeout = 5 * time.Second
	sweepTimeout  = 10 * time.Second // until what is left of a server is gone
	stopTimeout   = 20 * time.Second // for a clean stop inside the server; see Init
)

// initRecord names the record of a server's init in the server's folder.
const initRecord = "init"

// State asks how the server is.
func (l *Lab) State(server string) (State, error) {
	if err := l.known(server); err != nil {
		return Off, err
	}
	return l.state(server)
}

func (l *Lab) state(server string) (State, error) {
	if _, err := l.init(server); errors.Is(err, ErrOff) {
		return Off, nil
	} else if err != nil {
		return Off, err
	}
	f, err := l.freezer(server)
	if err != nil {
		return Off, fmt.Errorf("ask state of %s: %w", server, err)
	}
	frozen, err := f.isFrozen()
	if err != nil {
		return Off, fmt.Errorf("ask state of %s: %w", server, err)
	}
	switch {
	case frozen:
		return Frozen, nil
	case !l.plugged(server):
		return Cut, nil
	}
	return Running, nil
}

// PID returns the process on this machine that is the server's PID 1, or ErrOff.
func (l *Lab) PID(server string) (int, error) {
	if err := l.known(server); err != nil {
		return 0, err
	}
	return l.init(server)
}

// Processes lists the processes of the server by their ids on this machine; none when it is off.
func (l *Lab) Processes(server string) ([]int, error) {
	init, err := l.PID(server)
	if errors.Is(err, ErrOff) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return processesWith(init)
}

func (l *Lab) init(server string) (int, error) {
	pid, err := process.Running(l.dir(server), initRecord)
	if errors.Is(err, process.ErrNone) {
		return 0, ErrOff
	}
	return pid, err
}

func (l *Lab) freezer(server string) (freezer, error) {
	return openFreezer(l.Namespace(server), func() (int, error) { return l.init(server) })
}

// Start switches the server on: its RunDir is emptied, as a reboot does, and
// lab-init of its own binary started as its PID 1, which runs that binary's
// node. A server without a binary of its own gets executable as such. Start
// returns when the server has its network and its folders, before node is
// ready. A server that runs is left alone; a frozen one goes on.
func (l *Lab) Start(ctx context.Context, server, executable string) error {
	if err := l.known(server); err != nil {
		return err
	}
	executable, err := filepath.Abs(executable)
	if err != nil {
		return fmt.Errorf("start %s: %w", server, err)
	}
	if err := os.MkdirAll(l.dir(server), 0o700); err != nil {
		return fmt.Errorf("start %s: %w", server, err)
	}
	unlock, err := lock(ctx, l.dir(server))
	if err != nil {
		return err
	}
	defer unlock()
	switch state, err := l.state(server); {
	case err != nil:
		return fmt.Errorf("start %s: %w", server, err)
	case state == Off:
		return l.powerOn(ctx, server, executable)
	case state == Frozen:
		return l.thaw(ctx, server)
	}
	return nil
}

// Stop freezes the server: its processes stand still, its connections stay
// open and silent. Start lets it go on.
func (l *Lab) Stop(ctx context.Context, server string) error {
	unlock, err := l.lockServer(ctx, server)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := l.init(server); err != nil {
		return fmt.Errorf("stop %s: %w", server, err)
	}
	if err := l.freeze(ctx, server, true); err != nil {
		return fmt.Errorf("stop %s: %w", server, errors.Join(err, l.thaw(context.WithoutCancel(ctx), server)))
	}
	return nil
}

func (l *Lab) thaw(ctx context.Context, server string) error {
	if err := l.freeze(ctx, server, false); err != nil {
		return fmt.Errorf("let %s go on: %w", server, err)
	}
	return nil
}

func (l *Lab) freeze(ctx context.Context, server string, frozen bool) error {
	f, err := l.freezer(server)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, freezeTimeout)
	defer cancel()
	return until(ctx, func() (bool, error) {
		if err := f.set(frozen); err != nil {
			return false, err
		}
		is, err := f.isFrozen()
		return is == frozen, err
	})
}

// Kill switches the server's power off. Its cable goes first, so that nobody
// hears of it; it returns when every process is gone. Its LibDir stays.
func (l *Lab) Kill(ctx context.Context, server string) error {
	unlock, err := l.lockServer(ctx, server)
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.sweep(server); err != nil {
		return fmt.Errorf("kill %s: %w", server, err)
	}
	return nil
}

// Shutdown stops the server cleanly: node is asked to stop all that it runs,
// for up to 20 s; then, or when ctx ends, the power goes off as by Kill.
func (l *Lab) Shutdown(ctx context.Context, server string) error {
	unlock, err := l.lockServer(ctx, server)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := l.init(server); err == nil {
		// A frozen server hears nothing; that it could not be thawed is no reason to leave it on.
		_ = l.freeze(ctx, server, false)
		l.askToEnd(ctx, server)
	}
	if err := l.sweep(server); err != nil {
		return fmt.Errorf("shut down %s: %w", server, err)
	}
	return ctx.Err()
}

// askToEnd asks init for a clean stop and waits for its end, a little longer than init itself would.
func (l *Lab) askToEnd(ctx context.Context, server string) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout+2*time.Second)
	defer cancel()
	p, err := process.Adopt(l.dir(server), initRecord)
	if err != nil {
		return // it ended just now
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return // sweep ends it less kindly
	}
	select {
	case <-p.Done():
		p.Release()
	case <-ctx.Done():
	}
}

// sweep ends all that there is of the server, whatever state it is in: cable,
// processes, network namespace, control group. It has a deadline of its own
// and no context, for a server half gone serves nobody.
func (l *Lab) sweep(server string) error {
	ctx, cancel := context.WithTimeout(context.Background(), sweepTimeout)
	defer cancel()
	if err := l.unplug(server); err != nil {
		return err
	}
	if err := l.killAll(ctx, server); err != nil {
		return err
	}
	return netns.Delete(l.Namespace(server))
}

// killAll kills init, and by that all that is in its PID namespace
// (pid_namespaces(7)), then what else is in its control group.
func (l *Lab) killAll(ctx context.Context, server string) error {
	f, err := l.freezer(server)
	if err != nil {
		return err
	}
	p, err := process.Adopt(l.dir(server), initRecord)
	if err != nil && !errors.Is(err, process.ErrNone) {
		return err
	}
	if err == nil {
		if err := l.killInit(ctx, p, f); err != nil {
			return err
		}
	}
	if err := killRest(ctx, f); err != nil {
		return fmt.Errorf("kill what is left: %w", err)
	}
	return f.remove(ctx)
}

func (l *Lab) killInit(ctx context.Context, p *process.Process, f freezer) error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	// Frozen by cgroup v1 it would die only when thawed. With the signal
	// pending it does nothing else any more.
	_ = f.set(false)
	select {
	case <-p.Done():
		p.Release()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for process %d to die: %w", p.PID(), ctx.Err())
	}
}

// killRest kills processes that a lost record, or a move into the control
// group by hand, has left.
func killRest(ctx context.Context, f freezer) error {
	return until(ctx, func() (bool, error) {
		pids, err := f.processes()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0, err
	})
}
