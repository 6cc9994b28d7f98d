package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"trivet/internal/release"
	"trivet/lab"
	"trivet/node"
	"trivet/site"
)

var applyCommand = command{
	name: "apply", summary: "put a changed site file in force, without dropping a request",
	example: "trivet apply\ntrivet apply --site my.yaml",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		file := fs.String("site", "", "the site `file` (default ./site.yaml, or the example beside the binary)")
		timeout := fs.Duration("timeout", 2*time.Minute, "how long to wait until it is in force everywhere")
		return func(ctx context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("not in force everywhere after %s; `trivet status` shows where", *timeout))
			defer cancel()
			return apply(ctx, e, *name, *file)
		}
	},
}

func apply(ctx context.Context, e *env, name, file string) error {
	c, err := readChange(ctx, e, name, file)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(c.release.Tar) }()
	p := newProgress(e.out, c.lab.Servers)
	p.seen(overview(ctx, c.lab))
	a, err := answerers(c.lab)
	if err != nil {
		return err
	}
	revision, err := push(ctx, a, c.declared, c.release)
	if err != nil {
		return err
	}
	a.tell(e.out, "it takes revision %d when it is back", revision)
	if err := awaitReachable(ctx, c.lab, revision, p); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, "revision %d is in force\n", revision)
	return err
}

// awaitReachable waits for the servers that run now; one that is away takes the revision when it is back.
func awaitReachable(ctx context.Context, l *lab.Lab, revision int64, p *progress) error {
	defer p.end()
	return until(ctx, func() (bool, error) {
		o := overview(ctx, l)
		o.Servers = slices.DeleteFunc(o.Servers, func(s serverStatus) bool { return s.Power != string(lab.Running) })
		p.show(o)
		for _, s := range o.Servers {
			for _, part := range s.Parts {
				if !part.Healthy || part.Revision < revision {
					return false, nil
				}
			}
			if s.Error != "" {
				return false, nil
			}
		}
		return len(o.Servers) > 0, nil
	})
}

// change is a site file read, built, and ready to be planned or applied.
type change struct {
	lab      *lab.Lab
	declared node.Declared
	release  *release.Release
}

// readChange reads the site file for a lab that runs, and builds its release; the caller removes the tar.
func readChange(ctx context.Context, e *env, name, file string) (change, error) {
	l, err := openLab(name)
	if err != nil {
		return change{}, err
	}
	path, err := siteFile(file)
	if err != nil {
		return change{}, err
	}
	s, err := site.Load(path)
	if err != nil {
		return change{}, err
	}
	if err := sameSite(l, s); err != nil {
		return change{}, err
	}
	d, err := declaration(l, s)
	if err != nil {
		return change{}, err
	}
	rel, err := release.Build(ctx, s, io.Discard)
	if err != nil {
		return change{}, err
	}
	if rel.Files > 0 {
		d.Release = rel.Hash
	}
	return change{lab: l, declared: d, release: rel}, nil
}
