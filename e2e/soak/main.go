// Command soak has faults befall the databases of a lab under a load of
// transactions, and checks that they kept their word: random faults for a
// time, or each of the known ones in turn. It makes a lab of its own and
// removes it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"trivet/e2e"
	"trivet/e2e/history"
)

// options are the words of the command line.
type options struct {
	lab, prefix, program string
	keep                 bool
	length               time.Duration
	seed                 uint64
	history              string
	trials               string
	crashes              int
}

func main() {
	var o options
	flag.StringVar(&o.lab, "lab", "soak", "name of the lab")
	flag.StringVar(&o.prefix, "prefix", "10.89.0", "first three numbers of its addresses")
	flag.StringVar(&o.program, "program", "", "trivet that is tried; empty: the repository's")
	flag.BoolVar(&o.keep, "keep", false, "take a lab that is up, and leave it so")
	flag.DurationVar(&o.length, "for", 10*time.Minute, "how long random faults go on")
	flag.Uint64Var(&o.seed, "seed", 0, "of the random faults; 0: a new one, which is printed")
	flag.StringVar(&o.history, "history", "", "`file` for the history, as lines of JSON")
	flag.StringVar(&o.trials, "trials", "", "instead of random faults the known ones whose names match this regular expression, \".\" for all")
	flag.IntVar(&o.crashes, "crashes", 0, "instead of random faults the power of all three off, so many times")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	lab := e2e.New(o.lab, o.prefix)
	lab.Program = o.program
	if !o.keep {
		_, _ = lab.Run(ctx, "down") // what an interrupted run left
		defer func() {
			_, e := lab.Run(context.WithoutCancel(ctx), "down")
			err = errors.Join(err, e)
		}()
		if _, err := lab.Up(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("%s, %d cores, trivet %s\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.NumCPU(), version(ctx, lab))
	switch {
	case o.trials != "":
		return tryAll(ctx, lab, o.trials)
	case o.crashes > 0:
		return try(ctx, lab, slices.Repeat([]e2e.Trial{e2e.Crash}, o.crashes))
	}
	return soak(ctx, lab, o)
}

func version(ctx context.Context, lab *e2e.Lab) string {
	out, err := exec.CommandContext(ctx, lab.Binary(), "version").Output()
	if err != nil {
		return "of unknown version"
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "trivet ")
}

func tryAll(ctx context.Context, lab *e2e.Lab, pattern string) error {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	return try(ctx, lab, slices.DeleteFunc(slices.Clone(e2e.Trials), func(t e2e.Trial) bool { return !wanted.MatchString(t.Name) }))
}

// try has one after the other befall the lab, and fails if one was not survived.
func try(ctx context.Context, lab *e2e.Lab, trials []e2e.Trial) error {
	var all []error
	for _, t := range trials {
		f, err := lab.Try(ctx, t)
		fmt.Println(f)
		if err == nil && len(f.Wrong) > 0 {
			err = fmt.Errorf("%s: %d violations", t.Name, len(f.Wrong))
		}
		for _, w := range f.Wrong {
			fmt.Println("  " + w)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}

func soak(ctx context.Context, lab *e2e.Lab, o options) error {
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000)
	}
	r, ops, err := lab.Soak(ctx, e2e.Soak{For: o.length, Seed: o.seed, Out: os.Stdout})
	fmt.Print(r)
	for _, w := range r.Wrong {
		fmt.Println(w)
	}
	if o.history != "" {
		err = errors.Join(err, write(o.history, ops))
	}
	if err == nil && len(r.Wrong) > 0 {
		err = fmt.Errorf("the databases did not keep their word; once more: --seed %d", o.seed)
	}
	return err
}

func write(name string, ops []history.Op) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(history.Write(f, ops), f.Close())
}
