package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sync"

	"trivet/lab"
)

var downCommand = command{
	name: "down", summary: "remove the lab: every process, namespace, mount and file",
	example: "trivet down\ntrivet down --keep-data",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		keep := fs.Bool("keep-data", false, "stop cleanly and keep the servers' data for the next up")
		return func(ctx context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			return down(ctx, e, *name, *keep)
		}
	},
}

func down(ctx context.Context, e *env, name string, keep bool) error {
	if err := needRoot(); err != nil {
		return err
	}
	l, err := lab.Open(name)
	if errors.Is(err, lab.ErrNone) {
		_, err := fmt.Fprintf(e.out, "no lab %q is there: nothing to remove\n", name)
		return err
	}
	if err != nil {
		return err
	}
	if keep {
		if err := shutdown(ctx, l); err != nil {
			return err
		}
	}
	if err := l.Remove(ctx, keep); err != nil {
		return hinted{err, []string{"`trivet down` again goes on with what is left"}}
	}
	if keep {
		_, err = fmt.Fprintf(e.out, "lab %q is down; its data is kept for the next `trivet up`\n", name)
		return err
	}
	_, err = fmt.Fprintf(e.out, "lab %q is down; nothing of it is left\n", name)
	return err
}

// shutdown stops all servers cleanly, at the same time.
func shutdown(ctx context.Context, l *lab.Lab) error {
	errs := make([]error, len(l.Servers))
	var wg sync.WaitGroup
	for i, server := range l.Servers {
		wg.Go(func() { errs[i] = l.Shutdown(ctx, server) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
