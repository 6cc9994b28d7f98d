package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"trivet/node"
)

var planCommand = command{
	name: "plan", summary: "show what apply would change, and change nothing",
	example: "trivet plan --site my.yaml",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		file := fs.String("site", "", "the site `file` (default ./site.yaml, or the example beside the binary)")
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			changes, drained, err := plan(ctx, e, *name, *file)
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSON(e.out, changes)
			}
			return printPlan(e.out, changes, drained)
		}
	},
}

// plan asks every server what the site file would change there, and which are drained.
func plan(ctx context.Context, e *env, name, file string) (changes []node.Change, drained []string, err error) {
	c, err := readChange(ctx, e, name, file)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = os.Remove(c.release.Tar) }()
	a, err := answerers(c.lab)
	if err != nil {
		return nil, nil, err
	}
	if err := a.some(); err != nil {
		return nil, nil, err
	}
	changes, err = planAll(ctx, e, a, c.declared)
	return changes, overview(ctx, c.lab).Drained, err
}

func planAll(ctx context.Context, e *env, a answering, d node.Declared) ([]node.Change, error) {
	a.tell(e.err, "it is not asked what would change there")
	changes := []node.Change{}
	var errs []error
	for _, server := range a.clients {
		ch, err := server.Plan(ctx, d)
		changes, errs = append(changes, ch...), append(errs, err)
	}
	if len(changes) == 0 || ctx.Err() != nil {
		return changes, errors.Join(errs...)
	}
	for _, err := range errs {
		if err != nil {
			_, _ = fmt.Fprintf(e.err, "%v\n", err)
		}
	}
	return changes, nil
}

// printPlan prints the changes, and what goes on as it is whatever is applied.
func printPlan(w io.Writer, changes []node.Change, drained []string) error {
	if err := printChanges(w, changes); err != nil {
		return err
	}
	for _, s := range drained {
		if _, err := fmt.Fprintf(w, "%s stays drained: it gets no new requests until `trivet undrain %s`\n", s, s); err != nil {
			return err
		}
	}
	return nil
}

func printChanges(w io.Writer, changes []node.Change) error {
	if len(changes) == 0 {
		_, err := fmt.Fprintln(w, "nothing would change")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range grouped(changes) {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", c.Server, c.Part, c.What)
	}
	return t.Flush()
}

// grouped makes one of the changes that several servers share; it names them all.
func grouped(changes []node.Change) []node.Change {
	var out []node.Change
	for _, c := range changes {
		i := slices.IndexFunc(out, func(o node.Change) bool { return o.Part == c.Part && o.What == c.What })
		if i < 0 {
			out = append(out, c)
		} else if !slices.Contains(strings.Fields(out[i].Server), c.Server) {
			out[i].Server += " " + c.Server
		}
	}
	return out
}
