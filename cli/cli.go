// Package cli is the command line: one file for each command. A command
// validates its words, asks the domain to do the work, and says the outcome;
// it holds no logic of its own. Exit status: 0 it is so, 1 it is not, 2 the
// words were wrong.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
)

// Version of this binary; set at build time.
var Version = "dev"

// env is where a command reads and writes.
type env struct {
	in       io.Reader
	out, err io.Writer
}

// command is one word of the command line.
type command struct {
	name    string
	args    string // after the flags, for the usage line
	summary string
	example string
	hidden  bool
	raw     bool // its words are another program's: none is a flag of ours
	// family is what the command's next word may be: commands named by both
	// words. It then has no flags of its own.
	family func() []command
	// flags defines the command's flags and returns what runs with the words that are left.
	flags func(*flag.FlagSet) func(ctx context.Context, e *env, args []string) error
}

// commands in the order in which help lists them.
func commands() []command {
	return []command{
		upCommand, downCommand, statusCommand, logsCommand, planCommand, applyCommand,
		balancerCommand, dbCommand, drainCommand, undrainCommand, labCommand, upgradeCommand, signinCommand, initCommand, checkCommand, versionCommand,
		nodeCommand, workerCommand, labInitCommand, sstCommand,
	}
}

// usageError is an error of the words, not of the world.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// hinted is an error with lines that say what to do.
type hinted struct {
	error
	hints []string
}

func (h hinted) Unwrap() error { return h.error }

// errSaid ends a command that has already said why it is not so.
var errSaid = errors.New("said")

// Main runs the command that args name and returns the exit status.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	e := &env{in: in, out: out, err: errOut}
	return report(e, run(ctx, e, args[1:]))
}

func report(e *env, err error) int {
	var usage usageError
	var h hinted
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errSaid):
		return 1
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(e.err, "trivet: %v\n", err)
		return 2
	}
	word := err.Error()
	if errors.Is(err, context.Canceled) {
		word = "interrupted" // one word, however many servers were being asked
	}
	_, _ = fmt.Fprintf(e.err, "trivet: %s\n", word)
	if errors.As(err, &h) {
		for _, l := range h.hints {
			_, _ = fmt.Fprintf(e.err, "hint: %s\n", l)
		}
	}
	return 1
}

func run(ctx context.Context, e *env, args []string) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		help(e.out)
		return nil
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, e, args[1:])
		}
	}
	return usageError{fmt.Sprintf("there is no command %q; `trivet help` lists them", args[0])}
}

// runFamily runs the command that the next word names.
func (c command) runFamily(ctx context.Context, e *env, args []string) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		c.helpFamily(e.out)
		return nil
	}
	for _, word := range c.family() {
		if word.name == c.name+" "+args[0] {
			return word.run(ctx, e, args[1:])
		}
	}
	return usageError{fmt.Sprintf("there is no command %q; `trivet %s --help` lists them", c.name+" "+args[0], c.name)}
}

func (c command) run(ctx context.Context, e *env, args []string) error {
	if c.family != nil {
		return c.runFamily(ctx, e, args)
	}
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	do := c.flags(fs)
	if c.raw {
		return do(ctx, e, args)
	}
	rest, err := parse(fs, args)
	if errors.Is(err, flag.ErrHelp) {
		c.help(e.out, fs)
		return nil
	}
	if err != nil {
		return usageError{fmt.Sprintf("%s: %v; `trivet %s --help` shows an example", c.name, err, c.name)}
	}
	return do(ctx, e, rest)
}

// parse takes flags wherever they stand among the words.
func parse(fs *flag.FlagSet, args []string) ([]string, error) {
	var words []string
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		rest := fs.Args()
		if len(rest) == 0 {
			return words, nil
		}
		// What follows "--" is words, whatever it looks like.
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			return append(words, rest...), nil
		}
		words, args = append(words, rest[0]), rest[1:]
	}
}

func (c command) help(w io.Writer, fs *flag.FlagSet) {
	words := []string{"usage: trivet", c.name}
	fs.VisitAll(func(*flag.Flag) { words = append(words[:2], "[flags]") })
	if c.args != "" {
		words = append(words, c.args)
	}
	_, _ = fmt.Fprintf(w, "%s\n\n%s\n", c.summary, strings.Join(words, " "))
	fs.SetOutput(w)
	first := true
	fs.VisitAll(func(f *flag.Flag) {
		if first {
			_, _ = fmt.Fprintf(w, "\nflags:\n")
			first = false
		}
		value, usage := flag.UnquoteUsage(f)
		dashes := "--"
		if len(f.Name) == 1 {
			dashes = "-"
		}
		_, _ = fmt.Fprintf(w, "  %-20s %s", strings.TrimSpace(dashes+f.Name+" "+value), usage)
		if f.DefValue != "" && f.DefValue != "false" {
			_, _ = fmt.Fprintf(w, " (default %s)", f.DefValue)
		}
		_, _ = fmt.Fprintln(w)
	})
	_, _ = fmt.Fprintf(w, "\nexample:\n  %s\n", strings.ReplaceAll(c.example, "\n", "\n  "))
}

func help(w io.Writer) {
	_, _ = fmt.Fprint(w, "trivet turns three Linux servers, or three namespaces on one machine, into the\ninfrastructure of one site: balancer, firewall, certificates, web, app, database, monitor.\n\nusage: trivet COMMAND [flags]\n\n")
	list(w, commands())
	_, _ = fmt.Fprint(w, "\n`trivet COMMAND --help` shows its flags and an example.\n")
}

func (c command) helpFamily(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%s\n\nusage: trivet %s COMMAND [flags]\n\n", c.summary, c.name)
	list(w, c.family())
	_, _ = fmt.Fprintf(w, "\nexample:\n  %s\n\n`trivet %s COMMAND --help` shows its flags and an example.\n", strings.ReplaceAll(c.example, "\n", "\n  "), c.name)
}

// list tells what each command is for.
func list(w io.Writer, commands []command) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range commands {
		if !c.hidden {
			_, _ = fmt.Fprintf(t, "  %s\t%s\n", c.name, c.summary)
		}
	}
	_ = t.Flush()
}

// noArgs refuses words that the command has no use for.
func noArgs(args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Sprintf("unexpected %q", args[0])}
	}
	return nil
}
