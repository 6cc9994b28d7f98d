package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"trivet/internal/part"
	"trivet/lab"
)

var balancerCommand = command{
	name: "balancer", args: "status [SERVER]", summary: "show how each balancer sees the servers behind it; exit 1 if one cannot be asked",
	example: "trivet balancer status\ntrivet balancer status s1 --watch\ntrivet balancer status --json | jq '.[].balancer.backends[] | select(.state != \"up\")'",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		asJSON := fs.Bool("json", false, "print JSON")
		watch := fs.Bool("watch", false, "show it anew every second, until interrupted")
		return func(ctx context.Context, e *env, args []string) error {
			if len(args) == 0 || args[0] != "status" || len(args) > 2 {
				return usageError{"balancer: say what to show, as in `trivet balancer status` or `trivet balancer status s1`"}
			}
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			servers := l.Servers
			if len(args) == 2 {
				server, err := oneServer(l, args[1:])
				if err != nil {
					return err
				}
				servers = []string{server}
			}
			show := func() error { return showBalancers(ctx, e, l, servers, *asJSON) }
			if *watch {
				return watching(ctx, e.out, show)
			}
			return show()
		}
	},
}

// watchEvery is how often a command with --watch shows what is.
const watchEvery = time.Second

// watching calls show again and again until ctx ends, on a terminal each time on a clear screen.
func watching(ctx context.Context, w io.Writer, show func() error) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if terminal(w) {
			_, _ = io.WriteString(w, "\x1b[H\x1b[2J")
		}
		err := show()
		if err != nil && err != errSaid {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// balancerReport is one server's balancer as it shows itself, or why it does not.
type balancerReport struct {
	Server   string               `json:"server"`
	Error    string               `json:"error,omitempty"`
	Balancer *part.BalancerStatus `json:"balancer,omitempty"`
}

func showBalancers(ctx context.Context, e *env, l *lab.Lab, servers []string, asJSON bool) error {
	reports := inspectBalancers(ctx, l, servers)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if asJSON {
		if err := printJSON(e.out, reports); err != nil {
			return err
		}
	} else if err := printBalancers(e.out, reports, time.Now(), terminal(e.out)); err != nil {
		return err
	}
	for _, r := range reports {
		if r.Error != "" {
			return errSaid
		}
	}
	return nil
}

// inspectBalancers asks the servers' balancers, all at once.
func inspectBalancers(ctx context.Context, l *lab.Lab, servers []string) []balancerReport {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	reports := make([]balancerReport, len(servers))
	var wg sync.WaitGroup
	for i, server := range servers {
		wg.Go(func() { reports[i] = inspectBalancer(ctx, l, server) })
	}
	wg.Wait()
	return reports
}

func inspectBalancer(ctx context.Context, l *lab.Lab, server string) balancerReport {
	r := balancerReport{Server: server}
	power, err := l.State(server)
	switch {
	case err != nil:
		r.Error = err.Error()
		return r
	case power == lab.Off || power == lab.Frozen:
		r.Error = fmt.Sprintf("it is %s; `trivet lab start %s` starts it", power, server)
		return r
	}
	data, err := client(l, server).Inspect(ctx, part.Balancer)
	if err == nil {
		r.Balancer = &part.BalancerStatus{}
		err = json.Unmarshal(data, r.Balancer)
	}
	if err != nil {
		r.Balancer, r.Error = nil, strings.TrimPrefix(err.Error(), server+": ")
	}
	return r
}

// printBalancers shows for each balancer a line of its own figures and a table of its backends.
func printBalancers(w io.Writer, reports []balancerReport, now time.Time, colour bool) error {
	for i, r := range reports {
		if i > 0 {
			_, _ = fmt.Fprintln(w)
		}
		if r.Balancer == nil {
			if _, err := fmt.Fprintf(w, "%s cannot be asked: %s\n", r.Server, r.Error); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(w, "%s  %s\n", r.Server, figures(r.Balancer)); err != nil {
			return err
		}
		if err := backendTable(r.Balancer.Backends, now, colour).write(w, "  "); err != nil {
			return err
		}
	}
	return nil
}

// figures are the balancer's own, in words.
func figures(b *part.BalancerStatus) string {
	words := []string{
		"policy " + b.Policy,
		counted(int64(b.Connections), "connection"),
		counted(int64(b.Tunnels), "tunnel"),
		fmt.Sprintf("%d in flight", b.InFlight),
		fmt.Sprintf("%d queued", b.Queued),
	}
	if b.Limit > 0 {
		words[3] += fmt.Sprintf(" of at most %d", b.Limit)
	}
	words = append(words, fmt.Sprintf("%d shed", b.Shed), counted(int64(b.Retries), "retry"))
	if b.Maintenance {
		words = append([]string{"MAINTENANCE"}, words...)
	}
	return strings.Join(words, ", ")
}

// counted is a number with its noun.
func counted(n int64, noun string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "y"):
		noun = strings.TrimSuffix(noun, "y") + "ies"
	default:
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func backendTable(backends []part.BackendStatus, now time.Time, colour bool) *table {
	t := &table{colour: colour, right: []bool{false, false, true, true, true, true, true, true}}
	t.head("BACKEND", "STATE", "WEIGHT", "IN FLIGHT", "KEPT", "LATENCY", "REQUESTS", "FAILURES", "SINCE", "WHY")
	for _, b := range backends {
		t.row(
			cell{text: b.Name}, cell{text: b.State, colour: stateColour(b.State)}, cell{text: weight(b)},
			cell{text: strconv.FormatInt(b.InFlight, 10)}, cell{text: strconv.Itoa(b.Kept)}, cell{text: latency(b.Latency)},
			cell{text: strconv.FormatUint(b.Requests, 10)}, cell{text: strconv.FormatUint(b.Failures, 10)},
			cell{text: ago(b.Since, now), colour: dim}, cell{text: because(b, now)},
		)
	}
	return t
}

func stateColour(state string) string {
	switch state {
	case "up":
		return green
	case "down", "ejected":
		return red
	}
	return yellow
}

// weight is the one in force, and of how much if that is more.
func weight(b part.BackendStatus) string {
	effective := strconv.FormatFloat(b.Effective, 'f', 0, 64)
	if declared := strconv.Itoa(b.Weight); declared != effective {
		return effective + " of " + declared
	}
	return effective
}

// latency is rounded to what can be told apart at a glance.
func latency(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// ago is how long something has been so.
func ago(since, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return span(now.Sub(since))
}

// span is a duration in its largest unit or two.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

func because(b part.BackendStatus, now time.Time) string {
	if b.Until == nil {
		return b.Why
	}
	until := fmt.Sprintf("until %s, in %s", b.Until.Local().Format("15:04:05"), span(b.Until.Sub(now)+time.Second-1))
	if b.Why == "" {
		return until
	}
	return b.Why + "; " + until
}
