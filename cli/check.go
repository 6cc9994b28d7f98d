package cli

import (
	"context"
	"flag"
	"fmt"

	"trivet/site"
)

var checkCommand = command{
	name: "check", args: "FILE", summary: "read a site file and report all that is wrong in it", example: "trivet check site.yaml",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		asJSON := fs.Bool("json", false, "print the complete site, with every default, as JSON")
		return func(_ context.Context, e *env, args []string) error {
			if len(args) != 1 {
				return usageError{"check: name one site file, as in `trivet check site.yaml`"}
			}
			s, err := site.Load(args[0])
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSON(e.out, s)
			}
			_, err = fmt.Fprintf(e.out, "%s: the site %s is well declared\n", args[0], s.Name)
			return err
		}
	},
}
