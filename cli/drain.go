package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"trivet/internal/part"
	"trivet/lab"
	"trivet/node"
	"trivet/site"
)

var drainCommand = command{
	name: "drain", args: "SERVER", summary: "send a server no new requests; return when it has none any more",
	example: "trivet drain s2                 # before work on s2\ntrivet drain s2 --timeout 5m",
	flags:   func(fs *flag.FlagSet) func(context.Context, *env, []string) error { return drainFlags(fs, true) },
}

var undrainCommand = command{
	name: "undrain", args: "SERVER", summary: "send a drained server requests again",
	example: "trivet undrain s2",
	flags:   func(fs *flag.FlagSet) func(context.Context, *env, []string) error { return drainFlags(fs, false) },
}

const (
	// drainSlack is what drain waits beyond the time that the site gives to WebSockets.
	drainSlack = 10 * time.Second
	// undrainLimit is how long undrain waits for the balancers.
	undrainLimit = 15 * time.Second
)

// drainOptions are the words of drain and undrain.
type drainOptions struct {
	lab     string
	drained bool
	json    bool
	timeout time.Duration // 0: as the site says
}

func drainFlags(fs *flag.FlagSet, drained bool) func(context.Context, *env, []string) error {
	o := drainOptions{drained: drained}
	name := labFlag(fs)
	fs.BoolVar(&o.json, "json", false, "print JSON")
	usage := "how long to wait until every balancer follows (default 15s)"
	if drained {
		usage = "how long to wait until the server has no requests (default balancer.drain of the site, and 10s)"
	}
	fs.DurationVar(&o.timeout, "timeout", 0, usage)
	return func(ctx context.Context, e *env, args []string) error {
		o.lab = *name
		if len(args) != 1 {
			return usageError{"name one server"}
		}
		if o.timeout < 0 {
			return usageError{fmt.Sprintf("--timeout %s is no time to wait", o.timeout)}
		}
		return drain(ctx, e, o, args)
	}
}

// drainOutcome is what drain and undrain print as JSON.
type drainOutcome struct {
	Server  string   `json:"server"`
	Drained bool     `json:"drained"`
	Changed bool     `json:"changed"`        // false: it was so already
	Done    bool     `json:"done"`           // every balancer follows, and a drained server has no requests
	Left    []string `json:"left,omitempty"` // what is not done yet
}

func drain(ctx context.Context, e *env, o drainOptions, args []string) error {
	l, err := openLab(o.lab)
	if err != nil {
		return err
	}
	server, err := oneServer(l, args)
	if err != nil {
		return err
	}
	a, err := answerers(l)
	if err != nil {
		return err
	}
	if err := a.some(); err != nil {
		return err
	}
	d, err := firstAnswer(ctx, a.clients, func(c *node.Client) (node.Declared, error) { return c.Declared(ctx) })
	if err != nil {
		return err
	}
	changed, err := agreeDrain(ctx, a, server, o.drained)
	if err != nil {
		return err
	}
	if !o.json {
		a.tell(e.err, "it follows when it is back")
	}
	w := drainWait{lab: l, server: server, options: o, floating: d.Site.Address != ""}
	return w.tell(ctx, e, changed, o.limit(d.Site))
}

// limit is how long to wait.
func (o drainOptions) limit(s *site.Site) time.Duration {
	switch {
	case o.timeout > 0:
		return o.timeout
	case o.drained:
		return s.Balancer.Drain.Std() + drainSlack
	}
	return undrainLimit
}

// agreeDrain has one node agree on it with the others; changed is false if it was so already.
func agreeDrain(ctx context.Context, a answering, server string, drained bool) (changed bool, err error) {
	d, err := firstAnswer(ctx, a.clients, func(c *node.Client) (node.Drains, error) { return c.Drain(ctx, server, drained) })
	return d.Changed, err
}

// firstAnswer asks one node after another until one can be reached; what that one says counts.
func firstAnswer[T any](ctx context.Context, clients []*node.Client, ask func(*node.Client) (T, error)) (T, error) {
	var errs []error
	var none T
	for _, c := range clients {
		v, err := ask(c)
		if err == nil {
			return v, nil
		}
		errs = append(errs, err)
		if !errors.Is(err, node.ErrUnreachable) {
			return none, err
		}
		if ctx.Err() != nil {
			return none, context.Cause(ctx)
		}
	}
	return none, errors.Join(errs...)
}

// drainWait is what drain and undrain wait for.
type drainWait struct {
	lab      *lab.Lab
	server   string
	options  drainOptions
	floating bool // the site has a floating address
}

// tell waits and says what came of it.
func (w drainWait) tell(ctx context.Context, e *env, changed bool, limit time.Duration) error {
	left, err := w.await(ctx, e, limit)
	if err != nil && w.options.drained {
		return hinted{err, []string{fmt.Sprintf("%s stays drained: `trivet drain %s` waits on, `trivet undrain %s` takes it back", w.server, w.server, w.server)}}
	}
	if err != nil {
		return err
	}
	out := drainOutcome{Server: w.server, Drained: w.options.drained, Changed: changed, Done: len(left) == 0, Left: left}
	return out.print(e, w.options, limit)
}

// await waits until nothing is left to wait for, or limit is over; it returns what is left then.
func (w drainWait) await(ctx context.Context, e *env, limit time.Duration) ([]string, error) {
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	p := newProgress(e.out, w.lab.Servers)
	var left []string
	told, last := "", time.Time{}
	err := until(waiting, func() (bool, error) {
		view, err := w.look(waiting)
		if err != nil || waiting.Err() != nil {
			return false, err
		}
		left = view.left(w.server, w.options.drained)
		text := strings.Join(left, ", ")
		if !w.options.json && text != "" && text != told && time.Since(last) > time.Second {
			p.say("waiting: %s", text)
			told, last = text, time.Now()
		}
		return len(left) == 0, nil
	})
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		err = nil // the time is over, and left says the rest
		if left == nil {
			left = []string{"no server has answered"}
		}
	}
	return left, err
}

// drainView is what the servers that run say of drains.
type drainView struct {
	holder    string // of the floating address; "-" if the site has none
	writer    string // of the database
	spared    bool   // drained servers get requests, because no other is there
	balancers []balancerReport
}

// look asks the servers that run; one that is away or cut off follows when it is back.
func (w drainWait) look(ctx context.Context) (drainView, error) {
	var running []string
	for _, s := range w.lab.Servers {
		state, err := w.lab.State(s)
		if err != nil {
			return drainView{}, err
		}
		if state == lab.Running {
			running = append(running, s)
		}
	}
	o := overview(ctx, w.lab)
	v := drainView{holder: "-", writer: o.Writer, spared: o.Spared, balancers: inspectBalancers(ctx, w.lab, running)}
	if w.floating {
		v.holder = o.AddressHolder
	}
	return v, nil
}

// left is what is not yet as it should be for the server.
func (v drainView) left(server string, drained bool) []string {
	if drained && v.spared {
		return []string{"no other server is there any more, so that " + server + " gets requests all the same"}
	}
	var left []string
	for _, r := range v.balancers {
		if r.Balancer == nil {
			left = append(left, fmt.Sprintf("the balancer of %s cannot be asked (%s)", r.Server, r.Error))
			continue
		}
		i := slices.IndexFunc(r.Balancer.Backends, func(b part.BackendStatus) bool { return b.Name == server })
		if i < 0 {
			left = append(left, fmt.Sprintf("the balancer of %s does not know %s yet", r.Server, server))
			continue
		}
		b := r.Balancer.Backends[i]
		switch {
		case (b.State == "drained") != drained:
			left = append(left, fmt.Sprintf("the balancer of %s has not followed yet", r.Server))
		case drained && b.InFlight > 0:
			left = append(left, counted(b.InFlight, "request")+" from "+r.Server)
		}
	}
	switch {
	case !drained:
	case v.holder == server:
		left = append(left, server+" holds the floating address")
	case v.holder == "":
		left = append(left, "no other server has taken the floating address yet")
	}
	if drained && v.writer == server {
		left = append(left, server+" takes the database's writes")
	}
	return left
}

func (d drainOutcome) print(e *env, o drainOptions, limit time.Duration) error {
	if o.json {
		if err := printJSON(e.out, d); err != nil {
			return err
		}
		if !d.Done {
			return errSaid
		}
		return nil
	}
	if !d.Done && d.Drained {
		return hinted{
			fmt.Errorf("%s gets no new requests, but after %s this is left: %s", d.Server, limit, strings.Join(d.Left, ", ")),
			[]string{fmt.Sprintf("`trivet drain %s` waits on; `trivet balancer status` shows all; `trivet undrain %s` takes it back", d.Server, d.Server)},
		}
	}
	if !d.Done {
		return hinted{
			fmt.Errorf("%s is not drained any more, but after %s: %s", d.Server, limit, strings.Join(d.Left, ", ")),
			[]string{"`trivet status` shows which part is not healthy"},
		}
	}
	_, err := fmt.Fprintln(e.out, d.words())
	return err
}

func (d drainOutcome) words() string {
	already := ""
	switch {
	case d.Changed:
	case d.Drained:
		already = " (it was drained before)"
	default:
		already = " (it was not drained)"
	}
	if d.Drained {
		return fmt.Sprintf("%s is drained and has no requests%s; `trivet undrain %s` takes it back", d.Server, already, d.Server)
	}
	return fmt.Sprintf("%s gets requests%s", d.Server, already)
}
