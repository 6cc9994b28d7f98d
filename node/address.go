package node

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"trivet/internal/floating"
	"trivet/internal/pace"
	"trivet/internal/part"
)

const (
	addressRefresh  = 5 * time.Second // how often the holder announces the address again
	addressPatience = 6 * time.Second // how long there must be no quorum before a lone server takes the address
	addressProbes   = 3               // unanswered probes that it takes then
)

// address keeps the floating address on the one server that the cluster's key
// names. Without quorum the holder keeps it, and a server that nobody answers
// on the wire for the address takes it: pages go on where they can.
type address struct {
	server  string
	cluster agreement
	serving func() bool // whether this server's balancer runs
	log     *slog.Logger
	current *floating.Address
	where   netip.Addr
	lost    time.Time // since when there is no quorum
	silent  int       // probes in a row that nobody answered
	unwell  time.Time // since when the balancer does not run
	refresh time.Time
}

// agreement is what address needs of the cluster.
type agreement interface {
	Quorum() bool
	Acquire(ctx context.Context, key string, data []byte) (bool, error)
	Delete(ctx context.Context, key string) error
	ResignLeader(ctx context.Context) error
}

// run keeps the address in step until ctx ends; then it stays as it is.
func (a *address) run(ctx context.Context, states <-chan part.State) {
	due := time.NewTimer(0)
	defer due.Stop()
	var s part.State
	for {
		due.Reset(pace.Next(time.Second))
		select {
		case <-ctx.Done():
			return
		case s = <-states:
		case <-due.C:
		}
		if s.Site == nil || !a.locate(ctx, s) {
			continue
		}
		if err := a.step(ctx, s); err != nil && ctx.Err() == nil {
			a.log.Warn("keep floating address", "err", err)
		}
	}
}

// locate makes a.current match the site; it is false where the site has no floating address.
func (a *address) locate(ctx context.Context, s part.State) bool {
	where, err := netip.ParseAddr(s.Site.Address)
	if err != nil || where == a.where {
		return a.current != nil
	}
	own, err := netip.ParseAddr(s.Self().Address)
	if err != nil {
		return false
	}
	if a.current != nil {
		if err := a.current.Release(ctx); err != nil {
			a.log.Warn("release former floating address", "address", a.where, "err", err)
		}
	}
	a.where, a.current = where, floating.New(where, own, a.log)
	return true
}

// view is what a step is decided from.
type view struct {
	quorum bool
	other  bool          // the cluster names another server as the holder
	held   bool          // the address is on this server's link
	sick   bool          // this server's balancer does not run
	spent  bool          // this server is drained, and another can hold the address
	cable  bool          // the interface's cable has a signal
	lost   time.Duration // how long there has been no quorum
}

// action is what a step does about the address.
type action string

const (
	stay    action = "stay"    // leave it where it is
	probe   action = "probe"   // ask on the wire whether anybody has it
	drop    action = "drop"    // take it off this server
	giveUp  action = "give up" // take it off, and let another be named
	resign  action = "resign"  // let another be named, and keep it until one is
	acquire action = "acquire" // ask the cluster for it
)

func decide(v view) action {
	switch {
	case !v.quorum && !v.cable:
		return drop // it serves nobody here, and would be held twice when the cable is back
	case !v.quorum && (v.held || v.sick || v.lost < addressPatience):
		return stay
	case !v.quorum:
		return probe
	case v.other:
		return drop
	case v.sick:
		return giveUp
	case v.spent:
		return resign
	}
	return acquire
}

func (a *address) step(ctx context.Context, s part.State) error {
	v, err := a.look(s)
	if err != nil {
		return err
	}
	switch decide(v) {
	case probe:
		return a.probe(ctx)
	case drop:
		if v.held {
			return a.current.Release(ctx)
		}
	case giveUp:
		return a.giveUp(ctx, s)
	case resign:
		return a.resign(ctx, s)
	case acquire:
		return a.acquire(ctx, v.held)
	}
	return nil
}

func (a *address) look(s part.State) (view, error) {
	a.watchHealth()
	held, cable, err := a.current.Look()
	if err != nil {
		return view{}, err
	}
	v := view{quorum: a.cluster.Quorum(), held: held, sick: a.sick(), cable: cable, other: s.AddressHolder != "" && s.AddressHolder != a.server}
	v.spent = s.Self().Drained && another(s.Members, a.server)
	switch {
	case v.quorum:
		a.lost, a.silent = time.Time{}, 0
	case a.lost.IsZero():
		a.lost = time.Now()
	default:
		v.lost = time.Since(a.lost)
	}
	return v, nil
}

func (a *address) acquire(ctx context.Context, held bool) error {
	mine, err := a.cluster.Acquire(ctx, keyAddress, []byte(a.server))
	if err != nil {
		return err
	}
	if !mine {
		return a.current.Release(ctx)
	}
	return a.hold(ctx, held)
}

// hold puts the address on and announces it, and sees that the leader of the
// cluster is another server: the two must not be lost at once, for the lease
// ends only after there is a leader again.
func (a *address) hold(ctx context.Context, held bool) error {
	if held && time.Since(a.refresh) < addressRefresh {
		return nil
	}
	if !held {
		a.log.Info("taking floating address", "address", a.where)
	}
	a.refresh = time.Now()
	if err := a.current.Hold(ctx); err != nil {
		return err
	}
	return a.cluster.ResignLeader(ctx)
}

func (a *address) watchHealth() {
	switch {
	case a.serving():
		a.unwell = time.Time{}
	case a.unwell.IsZero():
		a.unwell = time.Now()
	}
}

// sick reports whether the balancer has not run for so long that another should hold the address.
func (a *address) sick() bool { return !a.unwell.IsZero() && time.Since(a.unwell) > 3*time.Second }

func (a *address) giveUp(ctx context.Context, s part.State) error {
	if s.AddressHolder == a.server {
		a.log.Warn("giving up floating address: the balancer does not run")
		if err := a.cluster.Delete(ctx, keyAddress); err != nil {
			return err
		}
	}
	return a.current.Release(ctx)
}

// resign lets another server be named while this one still has the address: it
// is dropped when another has it, so that visitors always meet one that answers.
func (a *address) resign(ctx context.Context, s part.State) error {
	if s.AddressHolder != a.server {
		return nil
	}
	a.log.Info("resigning floating address: this server is drained")
	return a.cluster.Delete(ctx, keyAddress)
}

// probe takes the address if nobody on the wire has it: its holder died with the quorum.
func (a *address) probe(ctx context.Context) error {
	taken, _, err := a.current.Probe(ctx)
	if err != nil {
		return err
	}
	if taken {
		a.silent = 0
		return nil
	}
	if a.silent++; a.silent < addressProbes {
		return nil
	}
	a.log.Warn("taking floating address without quorum: nobody on the wire has it", "address", a.where)
	return a.current.Hold(ctx)
}
