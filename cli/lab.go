package cli

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"trivet/lab"
)

var labCommand = command{
	name: "lab", args: "kill|stop|start|cut|heal SERVER", summary: "do to a lab's server what the world does to real ones",
	example: "trivet lab kill s1     # power off, at once\ntrivet lab stop s1     # freeze\ntrivet lab start s1    # power on, or thaw; returns when it is healthy\ntrivet lab cut s1      # unplug its cable\ntrivet lab cut s1 --one-way in --loss 30   # lose of what comes to it 30 in 100 packets\ntrivet lab heal s1     # plug it in; returns when it is healthy",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		way := fs.String("one-way", "", "cut loses packets of one `way` only, \"in\" to the server or \"out\" of it, and leaves the cable in")
		loss := fs.Int("loss", 100, "with --one-way, how many of a hundred packets are lost")
		timeout := fs.Duration("timeout", 2*time.Minute, "how long start and heal wait until the server is healthy")
		return func(ctx context.Context, e *env, args []string) error {
			if len(args) == 0 || faults[args[0]] == nil {
				return usageError{"lab: say what to do: kill, stop, start, cut or heal, and to which server"}
			}
			if *way != "" && args[0] != "cut" {
				return usageError{"lab: --one-way is for cut"}
			}
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			server, err := oneServer(l, args[1:])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("%s was not healthy after %s; `trivet status` shows why", server, *timeout))
			defer cancel()
			if args[0] == "cut" && *way != "" {
				return done(e, l.Lose(ctx, server, lab.Way(*way), *loss), "%s loses %d of 100 packets on the way %s", server, *loss, *way)
			}
			return faults[args[0]](ctx, e, l, server)
		}
	},
}

// faults by their words.
var faults = map[string]func(context.Context, *env, *lab.Lab, string) error{
	"kill": func(ctx context.Context, e *env, l *lab.Lab, s string) error {
		return done(e, l.Kill(ctx, s), "%s is off", s)
	},
	"stop": func(ctx context.Context, e *env, l *lab.Lab, s string) error {
		return done(e, l.Stop(ctx, s), "%s is frozen", s)
	},
	"cut": func(ctx context.Context, e *env, l *lab.Lab, s string) error {
		return done(e, l.Cut(ctx, s), "%s is unplugged", s)
	},
	"heal": func(ctx context.Context, e *env, l *lab.Lab, s string) error {
		if err := l.Heal(ctx, s); err != nil {
			return err
		}
		return done(e, healthy(ctx, l, s, lasting), "%s is plugged in and healthy", s)
	},
	"start": func(ctx context.Context, e *env, l *lab.Lab, s string) error {
		exe, err := os.Executable()
		if err != nil {
			return err
		}
		was, err := l.State(s)
		if err != nil {
			return err
		}
		if err := l.Start(ctx, s, exe); err != nil {
			return err
		}
		last := time.Duration(0)
		if was == lab.Frozen {
			last = lasting
		}
		return done(e, healthy(ctx, l, s, last), "%s runs and is healthy", s)
	},
}

func done(e *env, err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, format+"\n", args...)
	return err
}

// lasting is how long a server that was frozen or cut off must be healthy to
// count as such: it takes a moment to notice that the others went on without it.
const lasting = 2500 * time.Millisecond

// healthy waits until all parts of one server have been so for a while, and
// says which are not when the time is over.
func healthy(ctx context.Context, l *lab.Lab, server string, last time.Duration) error {
	var problems []string
	var since time.Time
	err := until(ctx, func() (bool, error) {
		problems = nil
		s := ask(ctx, l, server)
		if s.Error != "" {
			problems = append(problems, s.Error)
		}
		for _, p := range s.Parts {
			if !p.Healthy {
				problems = append(problems, p.Name+": "+p.Problem)
			}
		}
		if len(problems) > 0 || len(s.Parts) == 0 {
			since = time.Time{}
			return false, nil
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) >= last, nil
	})
	if err != nil && len(problems) > 0 {
		return fmt.Errorf("%w (%s)", err, strings.Join(problems, "; "))
	}
	return err
}
