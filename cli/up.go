package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"trivet/certificate"
	"trivet/internal/release"
	"trivet/lab"
	"trivet/node"
	"trivet/site"
)

var upCommand = command{
	name: "up", summary: "start a lab: three servers on this machine, serving the site",
	example: "trivet up\ntrivet up --site my.yaml --subnet 10.90.0.0/24",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		var o upOptions
		name := labFlag(fs)
		fs.StringVar(&o.site, "site", "", "the site `file` (default ./site.yaml, or the example beside the binary)")
		fs.StringVar(&o.subnet, "subnet", "", "the lab's `network` (default "+lab.DefaultSubnet+")")
		fs.DurationVar(&o.timeout, "timeout", 3*time.Minute, "how long to wait for every part to be healthy")
		return func(ctx context.Context, e *env, args []string) error {
			o.lab = *name
			if err := noArgs(args); err != nil {
				return err
			}
			return up(ctx, e, o)
		}
	},
}

type upOptions struct {
	lab, site, subnet string
	timeout           time.Duration
}

// cleanupLimit bounds what is done after an interrupt.
const cleanupLimit = 60 * time.Second

// up makes the lab run and serve the site, from whatever state the machine is
// in: nothing there, a lab that runs, one whose processes were killed, one
// whose data was kept.
func up(ctx context.Context, e *env, o upOptions) error {
	begun := time.Now()
	if err := needRoot(); err != nil {
		return err
	}
	if _, err := netip.ParsePrefix(cmp.Or(o.subnet, lab.DefaultSubnet)); err != nil {
		return wrongSubnet(o.subnet)
	}
	path, err := siteFile(o.site)
	if err != nil {
		return err
	}
	s, err := site.Load(path)
	if err != nil {
		return err
	}
	if err := preflight(); err != nil {
		return err
	}
	var names []string
	for _, srv := range s.Servers {
		names = append(names, srv.Name)
	}
	p := newProgress(e.out, names)
	// Before anything is made: a build that fails leaves no half of a lab.
	rel, err := build(ctx, s, p, o.timeout)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(rel.Tar) }()
	l, fresh, err := obtain(o, s)
	if err != nil {
		return err
	}
	if err := bringUp(ctx, l, s, rel, p, o.timeout); err != nil {
		return interrupted(ctx, e, l, fresh, err)
	}
	return welcome(ctx, e, l, s, time.Since(begun))
}

// build makes the site's release; its error holds what the build said.
func build(ctx context.Context, s *site.Site, p *progress, timeout time.Duration) (*release.Release, error) {
	limited, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not built after %s", timeout))
	defer cancel()
	rel, err := release.Build(limited, s, p.quietly("building the site's app"))
	if ctx.Err() != nil {
		return nil, errors.New("interrupted; nothing was made")
	}
	return rel, err
}

// obtain opens the lab or creates it. fresh is true if nothing of it was there before.
func obtain(o upOptions, s *site.Site) (l *lab.Lab, fresh bool, err error) {
	old, err := lab.Open(o.lab)
	if err != nil && !errors.Is(err, lab.ErrNone) {
		return nil, false, err
	}
	subnet, err := chosenSubnet(o, old)
	if err != nil {
		return nil, false, err
	}
	var names []string
	for _, srv := range s.Servers {
		names = append(names, srv.Name)
	}
	if old != nil {
		if err := sameSite(old, s); err != nil {
			return nil, false, err
		}
	}
	l, err = lab.Create(o.lab, subnet, names)
	if errors.Is(err, lab.ErrExists) {
		return old, false, nil
	}
	if err != nil {
		return nil, false, hinted{err, []string{"`trivet up --subnet 10.90.0.0/24` takes another range; `trivet down` removes a lab that is half there"}}
	}
	return l, old == nil, nil
}

func wrongSubnet(text string) error {
	return usageError{fmt.Sprintf("--subnet %q is not a network such as %s", text, lab.DefaultSubnet)}
}

func chosenSubnet(o upOptions, old *lab.Lab) (netip.Prefix, error) {
	if o.subnet == "" && old != nil {
		return old.Subnet, nil
	}
	text := o.subnet
	if text == "" {
		text = lab.DefaultSubnet
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, wrongSubnet(text)
	}
	if old != nil && old.Subnet != p.Masked() {
		return p, hinted{fmt.Errorf("lab %q is there with the network %s", old.Name, old.Subnet), []string{"`trivet down` removes it; --lab NAME runs another beside it"}}
	}
	return p, nil
}

// sameSite refuses a site whose names are not those that the lab's data were
// made under. It reads what the servers keep, so that it can tell of a lab that is off too.
func sameSite(l *lab.Lab, s *site.Site) error {
	for _, server := range l.Servers {
		d, ok, err := node.Kept(l.Dir(server, lab.Lib))
		if err != nil {
			return err
		}
		if ok {
			return renamed(d.Site, s)
		}
	}
	var names []string
	for _, srv := range s.Servers {
		names = append(names, srv.Name)
	}
	if !slices.Equal(l.Servers, names) {
		return hinted{fmt.Errorf("lab %q has the servers %v, the site file names %v", l.Name, l.Servers, names), []string{"`trivet down` first"}}
	}
	return nil
}

func renamed(was, now *site.Site) error {
	err := node.Renamed(was, now)
	r, ok := errors.AsType[node.RenameError](err)
	switch {
	case !ok:
		return err
	case r.Key == "name":
		return hinted{err, []string{"`trivet down` first removes it and its data; --lab NAME runs a second lab beside it"}}
	case r.Key == "servers":
		return hinted{err, []string{"`trivet down` first"}}
	}
	return hinted{err, []string{"renaming is not supported: dump the data, `trivet down`, `trivet up` with the new name, and load them"}}
}

// bringUp sets up and starts the servers, pushes the site and waits until all is healthy.
func bringUp(ctx context.Context, l *lab.Lab, s *site.Site, rel *release.Release, p *progress, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not every part was healthy after %s", timeout))
	defer cancel()
	if err := lab.EnsureUsers(ctx); err != nil {
		return err
	}
	d, err := declaration(l, s)
	if err != nil {
		return err
	}
	if rel.Files > 0 {
		d.Release = rel.Hash
	}
	if err := setUp(l, d, rel); err != nil {
		return err
	}
	p.say("starting %d servers in %s", len(l.Servers), l.Subnet)
	if err := startAll(ctx, l); err != nil {
		return err
	}
	return converge(ctx, l, d, rel, p)
}

// declaration is the site as the lab declares it, without its release.
func declaration(l *lab.Lab, s *site.Site) (node.Declared, error) {
	addresses := map[string]string{}
	for _, name := range l.Servers {
		addresses[name] = l.Address(name).String()
	}
	d := node.Declared{Revision: 1, Site: s.InLab(l.Operator(), l.Floating(), addresses), At: time.Now().UTC()}
	if s.App.Secrets == "" {
		return d, nil
	}
	data, err := os.ReadFile(s.Path(s.App.Secrets))
	if err != nil {
		return d, fmt.Errorf("read secrets file: %w", err)
	}
	d.Environment = string(data)
	return d, nil
}

// setUp writes what each server needs before its first start. A server that was set up keeps what it has.
func setUp(l *lab.Lab, d node.Declared, rel *release.Release) error {
	identities, err := certificate.NewAuthority(d.Site.Name+" identities", authorityLife)
	if err != nil {
		return err
	}
	visitors, err := certificate.NewAuthority(d.Site.Name+" lab", authorityLife)
	if err != nil {
		return err
	}
	kept := 0
	for _, name := range l.Servers {
		if _, ok, err := node.Kept(l.Dir(name, lab.Lib)); err != nil {
			return err
		} else if ok {
			kept++
		}
	}
	if kept == len(l.Servers) {
		return nil
	}
	if kept > 0 {
		return hinted{errors.New("only some of the servers were set up: an earlier `up` was cut short"), []string{"`trivet down` and `trivet up` begin anew"}}
	}
	for _, name := range l.Servers {
		dir := l.Dir(name, lab.Lib)
		if err := (node.Setup{Name: name, Shared: len(l.Servers), Declared: d, Identities: identities, Visitors: visitors}).Write(dir); err != nil {
			return err
		}
		if err := unpack(rel, dir); err != nil {
			return err
		}
	}
	return nil
}

// authorityLife is the lifetime of the lab's own roots.
const authorityLife = 2 * 365 * 24 * time.Hour

// unpack lays the release into a server's folder that does not run yet.
func unpack(rel *release.Release, lib string) error {
	if rel.Files == 0 {
		return nil
	}
	f, err := os.Open(rel.Tar)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	dir := lib + "/releases"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return release.Unpack(f, rel.Hash, dir)
}

// startAll brings every server to run: off is started, frozen is thawed, cut is plugged in.
func startAll(ctx context.Context, l *lab.Lab) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if err := renewOff(ctx, l, exe); err != nil {
		return err
	}
	for _, name := range l.Servers {
		if err := l.Start(ctx, name, exe); err != nil {
			return err
		}
		state, err := l.State(name)
		if err != nil {
			return err
		}
		if state == lab.Cut {
			if err := l.Heal(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// renewOff gives the servers of a lab that is off this binary. Where one runs
// the others start as what they were, for `trivet upgrade` to change all.
func renewOff(ctx context.Context, l *lab.Lab, exe string) error {
	for _, name := range l.Servers {
		if state, err := l.State(name); err != nil || state != lab.Off {
			return err
		}
	}
	for _, name := range l.Servers {
		if _, _, err := l.Install(ctx, name, exe); err != nil {
			return err
		}
	}
	return nil
}

// interrupted leaves nothing half made: a lab that this call created is removed, one that was there stays.
func interrupted(ctx context.Context, e *env, l *lab.Lab, fresh bool, err error) error {
	if !errors.Is(ctx.Err(), context.Canceled) {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return hinted{err, []string{"`trivet status` shows which part is not healthy, `trivet logs` why", "`trivet up` again goes on; `trivet down` removes the lab"}}
	}
	if !fresh {
		return hinted{errors.New("interrupted"), []string{"the lab stays as it is: `trivet up` goes on, `trivet down` removes it"}}
	}
	_, _ = fmt.Fprintln(e.err, "interrupted: removing what was made")
	clean, cancel := context.WithTimeout(context.Background(), cleanupLimit)
	defer cancel()
	if err := l.Remove(clean, false); err != nil {
		return hinted{fmt.Errorf("remove what was made: %w", err), []string{"`trivet down` tries again"}}
	}
	return errors.New("interrupted; nothing was left behind")
}

// welcome ends a successful up with what to open.
func welcome(ctx context.Context, e *env, l *lab.Lab, s *site.Site, took time.Duration) error {
	url, _, err := signIn(ctx, l)
	if err != nil {
		return err
	}
	ca := node.VisitorsCA(l.Dir(l.Servers[0], lab.Lib))
	_, err = fmt.Fprintf(e.out, `
%s is up after %.1f s: every part on every server is healthy

  site      https://%s/  at %s
  try       curl --cacert %s --resolve %s:443:%s https://%s/
  console   %s
            (signs in once, within 15 minutes; `+"`trivet signin`"+` makes another)
`, s.Name, took.Seconds(), s.Domain, l.Floating(), ca, s.Domain, l.Floating(), s.Domain, url)
	return err
}
