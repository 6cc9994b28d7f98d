package cli

import (
	"context"
	"flag"
	"fmt"

	"trivet/site"
)

var initCommand = command{
	name: "init", summary: "print an annotated site file", example: "trivet init > site.yaml",
	flags: func(*flag.FlagSet) func(context.Context, *env, []string) error {
		return func(_ context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			if _, err := fmt.Fprint(e.out, string(site.Example)); err != nil {
				return err
			}
			_, err := fmt.Fprintln(e.err, "hint: the file names the folders static and app beside it: `mkdir static app`, or write the names of yours")
			return err
		}
	},
}
