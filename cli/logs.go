package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"trivet/lab"
	"trivet/node"
)

var logsCommand = command{
	name: "logs", args: "[SERVER] [PART]", summary: "show what the parts wrote; -f follows",
	example: "trivet logs -f s1 app\ntrivet logs database",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		follow := fs.Bool("f", false, "go on with new lines until interrupted")
		lines := fs.Int("n", 20, "how many of the last lines of each file")
		asJSON := fs.Bool("json", false, "print each line as a JSON object: server, part, line")
		return func(ctx context.Context, e *env, args []string) error {
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			servers, parts, err := which(l, args)
			if err != nil {
				return err
			}
			return logs(ctx, e, l, logQuery{servers, parts, *lines, *follow, *asJSON})
		}
	},
}

type logQuery struct {
	servers, parts []string
	lines          int
	follow, json   bool
}

// which reads [SERVER] [PART] in either order; what is not named is all.
func which(l *lab.Lab, args []string) (servers, parts []string, err error) {
	for _, a := range args {
		switch {
		case slices.Contains(l.Servers, a) && servers == nil:
			servers = []string{a}
		case slices.Contains(node.LogParts(), a) && parts == nil:
			parts = []string{a}
		default:
			return nil, nil, usageError{fmt.Sprintf("logs: %q is neither a server (%s) nor a part (%s)", a, strings.Join(l.Servers, ", "), strings.Join(node.LogParts(), ", "))}
		}
	}
	if servers == nil {
		servers = l.Servers
	}
	if parts == nil {
		parts = node.LogParts()
	}
	return servers, parts, nil
}

// logs prints the streams of all servers and parts asked for, each line with where it is from.
func logs(ctx context.Context, e *env, l *lab.Lab, q logQuery) error {
	a, err := answerers(l)
	if err != nil {
		return err
	}
	a = a.only(q.servers)
	if err := a.some(); err != nil {
		return err
	}
	a.tell(e.err, "its logs are left out")
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, c := range a.clients {
		wg.Go(func() {
			if err := serverLogs(ctx, e.out, &mu, c, q); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	return errors.Join(errs...)
}

func serverLogs(ctx context.Context, out io.Writer, mu *sync.Mutex, c *node.Client, q logQuery) error {
	var wg sync.WaitGroup
	errs := make([]error, len(q.parts))
	for i, p := range q.parts {
		copyPart := func() {
			r, err := c.Logs(ctx, p, q.lines, q.follow)
			if err != nil {
				errs[i] = err
				return
			}
			defer func() { _ = r.Close() }()
			errs[i] = copyLines(out, mu, r, q.format(c.Server, p))
		}
		if q.follow {
			wg.Go(copyPart)
		} else {
			copyPart()
		}
	}
	wg.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// format returns how a line of one part is printed.
func (q logQuery) format(server, part string) func(line string) string {
	if !q.json {
		return func(line string) string { return server + " " + part + " | " + line }
	}
	return func(line string) string {
		data, err := json.Marshal(struct {
			Server string `json:"server"`
			Part   string `json:"part"`
			Line   string `json:"line"`
		}{server, part, line})
		if err != nil {
			panic(err) // three strings
		}
		return string(data)
	}
}

func copyLines(out io.Writer, mu *sync.Mutex, r io.Reader, format func(string) string) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		mu.Lock()
		_, err := fmt.Fprintln(out, format(s.Text()))
		mu.Unlock()
		if err != nil {
			return err
		}
	}
	return s.Err()
}
