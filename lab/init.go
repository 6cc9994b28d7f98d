package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trivet/internal/part"
	"trivet/internal/process"
)

// What Start and Init say to each other over the socket that is Init's descriptor 3.
const (
	goOn  = "go\n"
	ready = "ready"
)

// endTimeout is how long node may take to end for its successor.
const endTimeout = 10 * time.Second

// steady is how long node must have run for its next restart to be quick again.
const steady = 10 * time.Second

// Init is the first process of a lab's server, run as "trivet lab-init DIR
// SERVER PROGRAM [ARGUMENT …]" by Start, in namespaces of its own:
//
//	DIR      the server's folder on this machine, with lib, run and log
//	SERVER   the server's name, which becomes the host's name
//	PROGRAM  absolute path of what to run in node's place, with its arguments
//
// On descriptor 3 it waits for Start's order, mounts the server's folders, and
// answers "ready" or what went wrong. Then it is what systemd is to a real
// server: it runs the program, starts it again when it ends, with back-off,
// and reaps what is orphaned; it never kills what the program leaves running.
//
// SIGHUP has the program end, by SIGTERM or after ten seconds by SIGKILL, and
// started again at once: that is how another binary comes into use.
//
// SIGTERM, or the end of ctx, stops the server cleanly: the program gets
// SIGINT, which means to node "stop all that you run" (SIGTERM would mean "end
// and leave it running"); when it has ended, SIGTERM goes to all others. After
// 20 s at most Init returns, and the kernel kills whatever is left. Its own
// output goes to part.LogDir/init.log, the program's to part.LogDir/node.log.
func Init(ctx context.Context, args []string) error {
	if len(args) < 3 || os.Getpid() != 1 {
		return errors.New("lab-init is run by trivet up as the first process of a lab's server: it is not for use by hand")
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := obey(args[0], args[1], args[2]); err != nil {
		return fmt.Errorf("begin server %s: %w", args[1], err)
	}
	out, err := os.OpenFile(filepath.Join(part.LogDir, "node.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("begin server %s: %w", args[1], err)
	}
	defer func() { _ = out.Close() }()
	i := &initd{
		program: args[2:],
		out:     out,
		log:     slog.New(slog.NewTextHandler(os.Stderr, nil)).With("server", args[1]),
		again:   make(chan struct{}, 1),
		backoff: process.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second},
	}
	return i.run(ctx)
}

// obey waits for Start's order, furnishes the server and answers. If Start's
// process is gone the order never comes, and the server ends before it began.
func obey(dir, server, program string) error {
	if err := unix.SetNonblock(3, true); err != nil {
		return fmt.Errorf("use descriptor 3: %w", err)
	}
	unix.CloseOnExec(3)
	starter := os.NewFile(3, "starter")
	defer func() { _ = starter.Close() }()
	if err := starter.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		return fmt.Errorf("use descriptor 3: %w", err)
	}
	if _, err := io.ReadFull(starter, make([]byte, len(goOn))); err != nil {
		return fmt.Errorf("wait for order: %w", err)
	}
	if err := furnish(dir, server, program); err != nil {
		_, _ = starter.WriteString(err.Error())
		return err
	}
	_, err := starter.WriteString(ready)
	return err
}

func furnish(dir, server, program string) error {
	if err := unix.Sethostname([]byte(server)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	return mountAll(dir, program)
}

// initd is a running Init. All but the back-off's wait happens in run's
// goroutine, so that no exit status is reaped between a start and its record.
type initd struct {
	program []string
	out     *os.File
	log     *slog.Logger
	again   chan struct{} // it is time to start the program again
	backoff process.Backoff
	wait    sync.WaitGroup

	node    int // pid of the program; 0 while it does not run
	started time.Time
	renew   bool             // it was asked to end, for the next to begin at once
	late    <-chan time.Time // when to kill a program that does not
}

func (i *initd) run(ctx context.Context) error {
	defer i.wait.Wait()
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)
	renewals := make(chan os.Signal, 1)
	signal.Notify(renewals, syscall.SIGHUP)
	defer signal.Stop(renewals)
	i.start(ctx)
	for {
		select {
		case <-i.again:
			i.start(ctx)
		case <-renewals:
			i.end()
		case <-i.late:
			i.kill()
		case <-children:
			if i.reap() {
				i.restartLater(ctx)
			}
		case <-ctx.Done():
			i.stop(children)
			return nil
		}
	}
}

// start runs the program. ForkExec, and not os/exec: only reap waits for children.
func (i *initd) start(ctx context.Context) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		i.log.Error("start node", "error", err)
		i.restartLater(ctx)
		return
	}
	defer func() { _ = null.Close() }()
	i.started = time.Now()
	i.node, err = syscall.ForkExec(i.program[0], i.program, &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{null.Fd(), i.out.Fd(), i.out.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		i.node = 0
		i.log.Error("start node", "program", i.program[0], "error", err)
		i.restartLater(ctx)
		return
	}
	i.log.Info("node started", "pid", i.node)
	// From now on this process only waits; what its packages needed to begin with can go.
	debug.FreeOSMemory()
}

// reap takes the exit statuses of all ended children, and reports whether the
// program was one of them.
func (i *initd) reap() (ended bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return ended
		}
		if pid == i.node {
			i.log.Warn("node ended", "pid", pid, "how", describe(status), "after", time.Since(i.started).Round(time.Millisecond))
			i.node, ended = 0, true
		}
	}
}

// end asks the program to end; reap sees that it has.
func (i *initd) end() {
	if i.node == 0 {
		return // it is about to be started as it is
	}
	i.log.Info("restarting node", "pid", i.node)
	i.renew, i.late = true, time.After(endTimeout)
	_ = syscall.Kill(i.node, syscall.SIGTERM)
}

// kill ends a program that did not end when it was asked to.
func (i *initd) kill() {
	if i.node != 0 && i.renew {
		i.log.Warn("node does not end, killing it", "pid", i.node)
		_ = syscall.Kill(i.node, syscall.SIGKILL)
	}
}

func (i *initd) restartLater(ctx context.Context) {
	if i.renew {
		i.renew, i.late = false, nil
		i.backoff.Reset()
		i.start(ctx)
		return
	}
	if time.Since(i.started) > steady {
		i.backoff.Reset()
	}
	i.wait.Go(func() {
		if i.backoff.Wait(ctx) == nil {
			i.again <- struct{}{}
		}
	})
}

// stop ends the server cleanly, for as long as stopTimeout allows.
func (i *initd) stop(children <-chan os.Signal) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if i.node != 0 {
		i.log.Info("stopping", "pid", i.node)
		_ = syscall.Kill(i.node, syscall.SIGINT)
		if !i.reapUntil(ctx, children, func() bool { return i.node == 0 }) {
			i.log.Error("node did not stop in time", "limit", stopTimeout)
			return
		}
	}
	// What node did not run, or left. As PID 1, -1 is all but itself (kill(2)).
	_ = syscall.Kill(-1, syscall.SIGTERM)
	_ = syscall.Kill(-1, syscall.SIGCONT)
	if !i.reapUntil(ctx, children, alone) {
		i.log.Error("processes did not end in time", "limit", stopTimeout)
		return
	}
	i.log.Info("stopped")
}

// reapUntil reaps until done or until ctx ends, and reports which.
func (i *initd) reapUntil(ctx context.Context, children <-chan os.Signal, done func() bool) bool {
	for {
		i.reap()
		if done() {
			return true
		}
		select {
		case <-children:
		case <-ctx.Done():
			return false
		}
	}
}

// alone reports whether there are no other processes: every orphan is a child of PID 1.
func alone() bool {
	err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return errors.Is(err, unix.ECHILD)
}

func describe(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "killed by " + s.Signal().String()
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}
