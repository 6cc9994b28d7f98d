// Command dbbench measures the database of a lab of its own: what the router
// costs beside mariadbd's own socket, how long the three nodes take to come up
// and to join, how long writes pause when something fails, and the nodes'
// memory. It prints each figure beside the goal that it is held to; a goal that
// is missed is a figure like any other, and only a measurement that could not
// be made is an error. It takes about ten minutes.
//
// The clients run on the same machine, beside the three servers, so figures
// are comparable only between runs on like machines that had nothing else to
// do; those by one way and another within one run are.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"trivet/e2e"
	"trivet/e2e/measure"
)

// limit bounds a whole run.
const limit = 25 * time.Minute

func main() {
	b := &bench{}
	name := flag.String("lab", "dbbench", "name of the lab that is made and removed")
	prefix := flag.String("prefix", "10.85.0", "first three numbers of its addresses")
	program := flag.String("trivet", "", "`path` of the trivet to measure (default ./trivet of the repository)")
	flag.DurationVar(&b.each, "for", 2*time.Second, "how long each load runs")
	only := flag.String("only", "", "only the steps whose names match this regular expression: round-trip, throughput, memory, join, failover, one-node")
	asJSON := flag.Bool("json", false, "print JSON instead of a table")
	flag.Parse()
	b.lab = e2e.New(*name, *prefix)
	b.lab.Program = *program
	err := error(nil)
	if b.only, err = regexp.Compile(*only); err == nil {
		err = run(b, *asJSON)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dbbench:", err)
		os.Exit(1)
	}
}

func run(b *bench, asJSON bool) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root: it makes a lab")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()
	err := b.measure(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w (%w)", err, cause)
	}
	clean, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	if _, downErr := b.lab.Run(clean, "down"); err == nil {
		err = downErr
	}
	return errors.Join(err, b.show(asJSON)) // what was measured before an error is worth something
}

func (b *bench) show(asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(b.report)
	}
	if err := b.report.Print(os.Stdout); err != nil {
		return err
	}
	return printLoads(os.Stdout, b.report.Loads)
}

// bench is one run.
type bench struct {
	lab    *e2e.Lab
	each   time.Duration
	only   *regexp.Regexp
	app    account
	report report
}

// report is all that a run found.
type report struct {
	measure.Report
	Loads []load `json:"loads"`
}

// measure makes the lab, and leaves it running.
func (b *bench) measure(ctx context.Context) error {
	var err error
	if b.report.Machine, err = measure.Look(ctx, b.lab); err != nil {
		return err
	}
	if err := b.bringUp(ctx); err != nil {
		return err
	}
	if b.app, err = b.account(ctx); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"memory", b.memoryFirst},
		{"", b.prepare},
		{"round-trip", b.roundTrip},
		{"throughput", b.throughput},
		{"memory", b.memoryLoaded},
		{"join", b.joins},
		{"failover", b.failovers},
		{"one-node", b.oneNode},
	} {
		if step.name != "" && !b.only.MatchString(step.name) {
			continue
		}
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// say tells who waits what is going on.
func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) }

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
