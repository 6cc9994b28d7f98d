package cli

import (
	"context"
	"flag"
	"fmt"
	"time"

	"trivet/lab"
	"trivet/node"
)

var dbRotateCommand = command{
	name: "db rotate-password", summary: "give the app's database user a new password, and roll the app's instances, without a failed request",
	example: "trivet db rotate-password",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		timeout := fs.Duration("timeout", 3*time.Minute, "how long to wait until the former password is refused")
		return func(ctx context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			if *timeout <= 0 {
				return usageError{fmt.Sprintf("--timeout %s is no time to wait", *timeout)}
			}
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			return rotatePassword(ctx, e, l, *timeout)
		}
	},
}

// rotatePassword begins a change of the password and waits until it is over.
func rotatePassword(ctx context.Context, e *env, l *lab.Lab, limit time.Duration) error {
	a, err := answerers(l)
	if err == nil {
		err = a.some()
	}
	if err != nil {
		return err
	}
	begun, err := firstAnswer(ctx, a.clients, func(c *node.Client) (node.Rotation, error) { return c.RotatePassword(ctx) })
	if err != nil {
		return err
	}
	p := newProgress(e.out, l.Servers)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not over after %s", limit))
	defer cancel()
	told := ""
	err = until(ctx, func() (bool, error) {
		r, err := firstAnswer(ctx, a.clients, func(c *node.Client) (node.Rotation, error) { return c.Rotation(ctx) })
		if err != nil || r.At.Before(begun.At) { // the node asked has not heard of it
			return false, err
		}
		if r.Waiting != told && r.Waiting != "" {
			told = r.Waiting
			p.say("waiting for %s", told)
		}
		return r.Done, nil
	})
	if err != nil {
		return hinted{fmt.Errorf("change the database password: %w; waiting for %s", err, told), []string{"it goes on by itself; both passwords are taken meanwhile"}}
	}
	p.say("the app's instances have the new password, and the former one is refused")
	return nil
}
