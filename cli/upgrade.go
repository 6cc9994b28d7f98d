package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"trivet/internal/binary"
	"trivet/lab"
)

var upgradeCommand = command{
	name: "upgrade", summary: "make this binary the servers', one server after the other, without a dropped request",
	example: "trivet upgrade                 # all servers; the binary that is run is the one that they get\ntrivet upgrade --server s1     # one, to see how it does\ntrivet upgrade --json | jq .servers",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		u := &upgrade{}
		name := labFlag(fs)
		server := fs.String("server", "", "upgrade only the server of this `name`")
		asJSON := fs.Bool("json", false, "print the outcome as JSON; progress goes to standard error")
		fs.DurationVar(&u.timeout, "timeout", 2*time.Minute, "how long to wait for each server to be healthy before it is rolled back")
		return func(ctx context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			if err := u.prepare(*name, *server, e, *asJSON); err != nil {
				return err
			}
			err := u.run(ctx)
			if *asJSON {
				err = errors.Join(err, printJSON(e.out, u.outcome))
			}
			return err
		}
	},
}

// upgrade brings one binary to the servers of a lab.
type upgrade struct {
	lab     *lab.Lab
	servers []string // to be upgraded, in this order
	exe     string
	timeout time.Duration
	p       *progress
	outcome upgradeOutcome
}

// upgradeOutcome is what `trivet upgrade --json` prints.
type upgradeOutcome struct {
	Version string          `json:"version"`
	Build   string          `json:"build"`
	Servers []serverUpgrade `json:"servers"` // those that were begun with
}

// serverUpgrade is what became of one server.
type serverUpgrade struct {
	Server     string  `json:"server"`
	From       string  `json:"from"` // build before; empty: none was installed
	Seconds    float64 `json:"seconds"`
	Unchanged  bool    `json:"unchanged,omitempty"` // it ran this build
	Error      string  `json:"error,omitempty"`
	RolledBack bool    `json:"rolled_back,omitempty"`
}

func (u *upgrade) prepare(name, server string, e *env, asJSON bool) error {
	l, err := openLab(name)
	if err != nil {
		return err
	}
	u.lab, u.servers = l, l.Servers
	if server != "" {
		one, err := oneServer(l, []string{server})
		if err != nil {
			return err
		}
		u.servers = []string{one}
	}
	if u.exe, err = os.Executable(); err != nil {
		return err
	}
	if u.outcome.Build, err = binary.Build(u.exe); err != nil {
		return err
	}
	u.outcome.Version, u.outcome.Servers = Version, []serverUpgrade{}
	u.p = newProgress(e.out, l.Servers)
	if asJSON {
		u.p.out = e.err
	}
	u.p.live = false // each step has its line
	return nil
}

// run upgrades the servers one by one; the first that does not become healthy ends it.
func (u *upgrade) run(ctx context.Context) error {
	o := overview(ctx, u.lab)
	if !o.Healthy {
		return hinted{errors.New("not every part is healthy, and an upgrade of what is broken proves nothing"), []string{"`trivet status` shows what is not"}}
	}
	u.p.seen(o)
	for _, server := range u.order(o) {
		s, err := u.one(ctx, server)
		u.outcome.Servers = append(u.outcome.Servers, s)
		if err != nil {
			return err
		}
	}
	u.p.say("all of %s run build %s, version %s", strings.Join(u.servers, ", "), u.outcome.Build, Version)
	return nil
}

// order puts the servers with a role last: what goes wrong does so where it matters least.
func (u *upgrade) order(o fleet) []string {
	servers := slices.Clone(u.servers)
	slices.SortStableFunc(servers, func(a, b string) int { return len(o.roles(a)) - len(o.roles(b)) })
	return servers
}

// one upgrades one server, and rolls it back if it does not become healthy.
func (u *upgrade) one(ctx context.Context, server string) (s serverUpgrade, err error) {
	begun := time.Now()
	s.Server = server
	defer func() {
		s.Seconds = time.Since(begun).Seconds()
		if err != nil {
			s.Error = err.Error()
		}
	}()
	if u.lacks(ctx, server, u.outcome.Build) == "" {
		s.Unchanged = true
		u.p.say("%s runs build %s already", server, u.outcome.Build)
		return s, nil
	}
	_, s.From, err = u.lab.Install(ctx, server, u.exe)
	if err != nil {
		return s, err
	}
	u.p.say("%s: build %s in the place of %s", server, u.outcome.Build, s.From)
	if err = u.settle(ctx, server, u.outcome.Build); err == nil {
		u.p.say("%s runs build %s: node, its workers, every part is healthy%s", server, u.outcome.Build, u.leftovers(ctx, server))
		return s, nil
	}
	return u.back(ctx, s, err)
}

// back rolls a server back to the build before.
func (u *upgrade) back(ctx context.Context, s serverUpgrade, cause error) (serverUpgrade, error) {
	if s.From == "" || s.From == u.outcome.Build {
		return s, fmt.Errorf("upgrade %s: %w; there is no former build to go back to", s.Server, cause)
	}
	u.p.say("%s: %v; going back to build %s", s.Server, cause, s.From)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), u.timeout) // an interrupt leaves nothing half made
	defer cancel()
	err := u.lab.Use(ctx, s.Server, s.From)
	if err == nil {
		err = u.settle(ctx, s.Server, s.From)
	}
	if err != nil {
		return s, fmt.Errorf("upgrade %s: %w; and going back to build %s: %w", s.Server, cause, s.From, err)
	}
	s.RolledBack = true
	u.p.say("%s runs build %s again, healthy", s.Server, s.From)
	return s, hinted{
		fmt.Errorf("upgrade %s: %w; it was rolled back to build %s", s.Server, cause, s.From),
		[]string{fmt.Sprintf("`trivet logs node` and those of the part that is named show why; servers before %s keep the new build", s.Server)},
	}
}

// settle restarts the server's node and waits until it and its workers run build, all healthy.
func (u *upgrade) settle(ctx context.Context, server, build string) error {
	if err := u.lab.Restart(server); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, u.timeout, fmt.Errorf("not healthy after %s", u.timeout))
	defer cancel()
	var why string
	var since time.Time
	err := until(ctx, func() (bool, error) {
		lacks := u.lacks(ctx, server, build)
		if ctx.Err() != nil {
			return false, nil // the answer was cut short
		}
		if why = lacks; why != "" {
			since = time.Time{}
			return false, u.refusal(ctx, server, build)
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) >= lasting, nil
	})
	if ctx.Err() != nil && why != "" {
		return fmt.Errorf("%w (%s)", err, why)
	}
	return err
}

// lacks says what a server has not got yet to run build, healthy; empty: nothing.
func (u *upgrade) lacks(ctx context.Context, server, build string) string {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	s := ask(ctx, u.lab, server)
	switch {
	case s.Error != "":
		return s.Error
	case s.status.Build != build:
		return fmt.Sprintf("node runs build %s", s.status.Build)
	case !s.status.Quorum:
		return "node has no word of the cluster yet"
	}
	u.p.show(fleet{Servers: []serverStatus{s}})
	for _, name := range slices.Sorted(maps.Keys(s.status.Workers)) {
		if w := s.status.Workers[name]; w.Build != build {
			return fmt.Sprintf("%s runs build %s", name, w.Build)
		}
	}
	for _, p := range s.Parts {
		if !p.Healthy {
			return p.Name + ": " + p.Problem
		}
	}
	return ""
}

// refusal is why a worker was not handed over to build; nil if none was refused.
func (u *upgrade) refusal(ctx context.Context, server, build string) error {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	s := ask(ctx, u.lab, server)
	if s.status.Build != build {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(s.status.Workers)) {
		if why := s.status.Workers[name].HandOver; why != "" {
			return errors.New(why)
		}
	}
	return nil
}

// leftovers says which former processes still finish.
func (u *upgrade) leftovers(ctx context.Context, server string) string {
	s := ask(ctx, u.lab, server)
	n := 0
	for _, w := range s.status.Workers {
		n += len(w.Retiring)
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d former processes finish their open connections", n)
}
