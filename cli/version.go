package cli

import (
	"context"
	"flag"
	"fmt"
)

var versionCommand = command{
	name: "version", summary: "print the version of this binary", example: "trivet version",
	flags: func(*flag.FlagSet) func(context.Context, *env, []string) error {
		return func(_ context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			_, err := fmt.Fprintln(e.out, Version)
			return err
		}
	},
}
