package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
)

// Words by which the processes of a server are found.
const (
	mariadbd = "mariadbd"
	nodeWord = "trivet node"
	router   = "trivet worker router"
)

// killProcess kills one kind of process on a server.
func killProcess(words ...string) func(context.Context, *Lab, string) error {
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
func labCommand(args ...string) func(context.Context, *Lab, string) error {
	return func(ctx context.Context, l *Lab, server string) error {
		_, err := l.Run(ctx, append(append([]string{"lab"}, args...), server)...)
		return err
	}
}

// everywhere does the same to all servers at once.
func everywhere(f func(context.Context, *Lab, string) error) func(context.Context, *Lab, string) error {
	return func(ctx context.Context, l *Lab, _ string) error {
		all := make([]error, len(Servers))
		var wg sync.WaitGroup
		for i, server := range Servers {
			wg.Go(func() { all[i] = f(ctx, l, server) })
		}
		wg.Wait()
		return errors.Join(all...)
	}
}

// Trials are the single faults, in the order in which they are tried.
var Trials = []Trial{
	{Name: "mariadbd of the writer killed", Victim: Writer, Break: killProcess(mariadbd)},
	{Name: "mariadbd of another server killed", Victim: Other, Break: killProcess(mariadbd)},
	{Name: "power of the writer off", Victim: Writer, Break: labCommand("kill"), Mend: labCommand("start"), Apart: true},
	{Name: "power of another server off", Victim: Other, Break: labCommand("kill"), Mend: labCommand("start"), Apart: true},
	{Name: "writer unplugged", Victim: Writer, Break: labCommand("cut"), Mend: labCommand("heal"), Apart: true},
	{Name: "another server unplugged", Victim: Other, Break: labCommand("cut"), Mend: labCommand("heal"), Apart: true},
	{Name: "writer frozen", Victim: Writer, Break: labCommand("stop"), Mend: labCommand("start"), Apart: true},
	{Name: "another server frozen", Victim: Other, Break: labCommand("stop"), Mend: labCommand("start"), Apart: true},
	{Name: "router of the writer killed", Victim: Writer, Break: killProcess(router)},
	{Name: "router of another server killed", Victim: Other, Break: killProcess(router), Apart: true},
	{Name: "node and etcd of the writer killed", Victim: Writer, Break: killProcess(nodeWord)},
	{Name: "node, etcd and mariadbd of the writer killed", Victim: Writer, Break: killProcess(nodeWord, mariadbd)},
	{Name: "all three mariadbd killed", Victim: All, Break: everywhere(killProcess(mariadbd))},
	{Name: "power of all three off", Victim: All, Break: everywhere(labCommand("kill")), Mend: everywhere(labCommand("start"))},
}
