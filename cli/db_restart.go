package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"trivet/lab"
)

var dbRestartCommand = command{
	name: "db restart", summary: "restart MariaDB on one server after the other, the writer last, without a failed write",
	example: "trivet db restart                 # after MariaDB's package was upgraded on every server\ntrivet db restart --server s1     # one, to see how it does",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		r := &dbRestart{}
		name := labFlag(fs)
		server := fs.String("server", "", "restart only that of the server of this `name`")
		asJSON := fs.Bool("json", false, "print the outcome as JSON; progress goes to standard error")
		return func(ctx context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			if err := r.prepare(*name, *server, e, *asJSON); err != nil {
				return err
			}
			err := r.run(ctx)
			if *asJSON {
				err = errors.Join(err, printJSON(e.out, r.outcome))
			}
			return err
		}
	},
}

// dbRestart restarts the databases of a lab's servers.
type dbRestart struct {
	lab     *lab.Lab
	servers []string // whose turn it is
	p       *progress
	outcome dbRestartOutcome
}

// dbRestartOutcome is what `trivet db restart --json` prints.
type dbRestartOutcome struct {
	Servers []restarted `json:"servers"` // those that were begun with
}

// restarted is what became of one server.
type restarted struct {
	Server  string  `json:"server"`
	Seconds float64 `json:"seconds"`         // until it was synced again
	Moved   string  `json:"moved,omitempty"` // server that took its writes over
	Error   string  `json:"error,omitempty"`
}

func (r *dbRestart) prepare(name, server string, e *env, asJSON bool) error {
	l, err := openLab(name)
	if err != nil {
		return err
	}
	r.lab, r.servers = l, l.Servers
	if server != "" {
		one, err := oneServer(l, []string{server})
		if err != nil {
			return err
		}
		r.servers = []string{one}
	}
	r.outcome.Servers = []restarted{}
	r.p = newProgress(e.out, l.Servers)
	if asJSON {
		r.p.out = e.err
	}
	return nil
}

// run restarts one after the other; the first that is not synced again ends it.
func (r *dbRestart) run(ctx context.Context) error {
	d := databaseOf(inspectDatabase(ctx, r.lab))
	if !d.Synced {
		return hinted{errors.New("not every server's database is synced, and one at a time is enough"), []string{"`trivet db status` shows which is not, and why"}}
	}
	for _, server := range writerLast(r.servers, d.Writer) {
		s, err := r.one(ctx, server)
		r.outcome.Servers = append(r.outcome.Servers, s)
		if err != nil {
			return hinted{err, []string{fmt.Sprintf("`trivet db status` shows where it stands, `trivet logs %s database` what MariaDB said; those before %s are restarted", server, server)}}
		}
	}
	r.p.say("restarted and synced: %s", strings.Join(r.servers, ", "))
	return nil
}

// writerLast puts the writer last: it is to move once.
func writerLast(servers []string, writer string) []string {
	out := slices.DeleteFunc(slices.Clone(servers), func(s string) bool { return s == writer })
	if len(out) < len(servers) {
		out = append(out, writer)
	}
	return out
}

// one restarts one server's database, after its writes have gone elsewhere.
func (r *dbRestart) one(ctx context.Context, server string) (s restarted, err error) {
	begun := time.Now()
	s.Server = server
	defer func() {
		s.Seconds = time.Since(begun).Seconds()
		if err != nil {
			s.Error = err.Error()
		}
	}()
	a, err := answerers(r.lab)
	if err != nil {
		return s, err
	}
	if databaseOf(inspectDatabase(ctx, r.lab)).Writer == server {
		moved, err := switchWriter(ctx, a, "")
		if err != nil {
			return s, err
		}
		s.Moved = moved.Writer
		r.p.say("%s takes the writes, which %s took; it took %s", moved.Writer, moved.From, moved.Took.Round(time.Millisecond))
	}
	r.p.say("%s: restarting", server)
	if err := client(r.lab, server).RestartDatabase(ctx); err != nil {
		return s, err
	}
	r.p.say("%s is synced again, %.1f s after", server, time.Since(begun).Seconds())
	return s, nil
}
