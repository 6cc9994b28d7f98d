// Command bench measures a lab of its own: how long it takes to come up, what
// it costs while nobody visits, what a request costs, and how long visitors
// notice a server that is gone. It prints each figure beside the goal that it
// is held to; a goal that is missed is a figure like any other, and only a
// measurement that could not be made is an error. It takes about five minutes.
//
// The load runs on the same machine, beside the three servers, so figures are
// comparable only between runs on like machines that had nothing else to do.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"trivet/e2e"
)

// limit bounds a whole run.
const limit = 10 * time.Minute

func main() {
	name := flag.String("lab", "bench", "name of the lab that is made and removed")
	prefix := flag.String("prefix", "10.90.0", "first three numbers of its addresses")
	program := flag.String("trivet", "", "`path` of the trivet to measure (default ./trivet of the repository)")
	idle := flag.Duration("idle", time.Minute, "how long the idle lab is watched")
	asJSON := flag.Bool("json", false, "print JSON instead of a table")
	flag.Parse()
	lab := e2e.New(*name, *prefix)
	lab.Program = *program
	if err := run(lab, *idle, *asJSON); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(lab *e2e.Lab, idle time.Duration, asJSON bool) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root: it makes a lab")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()
	b := &bench{lab: lab, idle: idle}
	err := b.measure(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w (%w)", err, cause)
	}
	clean, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	if _, downErr := lab.Run(clean, "down"); err == nil {
		err = downErr
	}
	if err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(b.report)
	}
	return b.report.Print(os.Stdout)
}
