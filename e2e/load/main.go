// Command load visits a lab's site at a steady rate and prints what failed:
// what the lab ring does, for a person who breaks things by hand.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"trivet/e2e"
)

func main() {
	name := flag.String("lab", "lab", "name of the lab")
	prefix := flag.String("prefix", "10.77.0", "first three numbers of its addresses")
	rate := flag.Int("rate", 200, "requests a second")
	length := flag.Duration("for", time.Minute, "how long")
	flag.Parse()
	if err := run(*name, *prefix, *rate, *length); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(name, prefix string, rate int, length time.Duration) error {
	lab := e2e.New(name, prefix)
	client, err := lab.Visitor(lab.Floating())
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	begun := time.Now()
	l := &e2e.Load{Client: client, Rate: rate, Tag: fmt.Sprintf("load-%d", begun.UnixNano())}
	l.Run(ctx)
	end := begun.Add(min(length, time.Since(begun)))
	missing, err := l.Missing(client)
	if err != nil {
		return err
	}
	fmt.Printf("%d GETs answered, %d failed; %d posts acknowledged, %d not, %d acknowledged and missing; longest gap between acknowledged posts %.2f s\n",
		l.Gets, len(l.Failed), len(l.Acked), len(l.Lost), len(missing), l.Gap(begun, end).Seconds())
	for _, f := range l.Failed[:min(10, len(l.Failed))] {
		fmt.Println("failed:", f)
	}
	for _, f := range l.Lost[:min(10, len(l.Lost))] {
		fmt.Println("not acknowledged:", f)
	}
	return nil
}
