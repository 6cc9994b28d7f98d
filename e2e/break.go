package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"trivet/lab"
)

// Words by which the processes of a server are found.
const (
	mariadbd = "mariadbd"
	nodeWord = "trivet node"
	router   = "trivet worker router"
)

// killProcess kills one kind of process on a server.
func killProcess(words ...string) deed {
	return func(_ context.Context, l *Lab, server string) error {
		var all []error
		for _, word := range words {
			all = append(all, l.signal(server, word, syscall.SIGKILL))
		}
		return errors.Join(all...)
	}
}

// signal sends a signal to the processes of a server that have the word.
func (l *Lab) signal(server, word string, s syscall.Signal) error {
	pids, err := l.Processes(server, word)
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return fmt.Errorf("%s runs no %s", server, word)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal %s of %s: %w", word, server, err)
		}
	}
	return nil
}

// labCommand is a command of trivet lab.
func labCommand(args ...string) deed {
	return func(ctx context.Context, l *Lab, server string) error {
		_, err := l.Run(ctx, append(append([]string{"lab"}, args...), server)...)
		return err
	}
}

// everywhere does the same to all servers at once.
func everywhere(d deed) deed {
	return func(ctx context.Context, l *Lab, _ string) error { return at(ctx, l, d, Servers) }
}

// inTurn does one deed after the other.
func inTurn(all ...deed) deed {
	return func(ctx context.Context, l *Lab, victim string) error {
		for _, d := range all {
			if err := d(ctx, l, victim); err != nil {
				return err
			}
		}
		return nil
	}
}

// onOthers does the same to the servers but the victim, at once.
func onOthers(d deed) deed {
	return func(ctx context.Context, l *Lab, victim string) error {
		return at(ctx, l, d, others(victim))
	}
}

// at does the same to several servers at once.
func at(ctx context.Context, l *Lab, d deed, servers []string) error {
	all := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, server := range servers {
		wg.Go(func() { all[i] = d(ctx, l, server) })
	}
	wg.Wait()
	return errors.Join(all...)
}

// wait lets time pass.
func wait(d time.Duration) deed {
	return func(ctx context.Context, _ *Lab, _ string) error { return pause(ctx, d) }
}

// term ends processes by SIGTERM.
func term(word string) deed {
	return func(_ context.Context, l *Lab, server string) error { return l.signal(server, word, syscall.SIGTERM) }
}

// shutdown stops a server cleanly, as its operator would.
func shutdown(ctx context.Context, l *Lab, server string) error {
	of, err := lab.Open(l.Name)
	if err != nil {
		return err
	}
	return of.Shutdown(ctx, server)
}
