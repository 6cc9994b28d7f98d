package cli

import (
	"context"
	"flag"
	"fmt"
	"time"

	"trivet/node"
)

var dbSwitchCommand = command{
	name: "db switch", args: "[SERVER]", summary: "move the database's writes to another server, between two transactions",
	example: "trivet db switch          # to any that can take them\ntrivet db switch s2",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, e *env, args []string) error {
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			to := ""
			if len(args) > 0 {
				if to, err = oneServer(l, args); err != nil {
					return err
				}
			}
			a, err := answerers(l)
			if err == nil {
				err = a.some()
			}
			if err != nil {
				return err
			}
			s, err := switchWriter(ctx, a, to)
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSON(e.out, s)
			}
			_, err = fmt.Fprintf(e.out, "%s takes the writes, which %s took; it took %s\n", s.Writer, s.From, s.Took.Round(time.Millisecond))
			return err
		}
	},
}

// switchWriter has one node see to it.
func switchWriter(ctx context.Context, a answering, to string) (node.Switch, error) {
	return firstAnswer(ctx, a.clients, func(c *node.Client) (node.Switch, error) { return c.SwitchWriter(ctx, to) })
}
