package balancer

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"trivet/internal/pace"
	"trivet/proxy/upstream"
	"trivet/proxy/wire"
	"trivet/site"
)

// A suspect backend gets urgent checks: at most urgentFall of them, each of at
// most urgentTimeout, so that a frozen one is out within a second of the first
// request that hangs on it. A backend that was checked less than urgentPause
// ago is not suspect again.
const (
	urgentTimeout = 275 * time.Millisecond
	urgentFall    = 2
	urgentPause   = 100 * time.Millisecond
	backPause     = 200 * time.Millisecond // between checks of one that went down less than backSoon ago
	backSoon      = 10 * time.Second
)

// checkHeader marks a check for the web server; its value is how many
// milliseconds the check waits.
var checkHeader = []byte("X-Trivet-Check")

var userAgent, agent = []byte("User-Agent"), []byte("trivet-balancer")

// verdict is the outcome of one check.
type verdict struct {
	state upstream.State // Up, Unwell or Down
	why   string
}

// checkAll keeps one checker for each backend until ctx ends.
func (b *Balancer) checkAll(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[*backend]context.CancelFunc{}
	for {
		present := map[*backend]bool{}
		for _, k := range b.now.Load().backends {
			present[k] = true
			if running[k] == nil {
				checking, stop := context.WithCancel(ctx)
				running[k] = stop
				wg.Go(func() { (&checker{balancer: b, backend: k}).run(checking) })
			}
		}
		for k, stop := range running {
			if !present[k] {
				stop()
				delete(running, k)
				b.forget(k)
			}
		}
		select {
		case <-b.changed:
		case <-ctx.Done():
			for _, stop := range running {
				stop()
			}
			return
		}
	}
}

// forget takes away the meter of a backend whose server is no longer in the site.
func (b *Balancer) forget(gone *backend) {
	for _, k := range b.now.Load().backends {
		if k.name == gone.name {
			return
		}
	}
	b.meters.up.DeleteLabelValues(gone.name)
}

// checker is the state machine of one backend's health.
type checker struct {
	balancer *Balancer
	backend  *backend
	good     int // checks in a row
	bad      int
	silent   int       // bad ones without any answer
	last     time.Time // end of the last check
	out      time.Time // when it last went down
}

// run checks at once, then at the site's interval and whenever the backend is
// suspect, until ctx ends.
func (c *checker) run(ctx context.Context) {
	c.regular(ctx)
	for {
		timer := time.NewTimer(c.pause())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
			c.regular(ctx)
		case <-c.backend.kick:
			timer.Stop()
			c.suspected(ctx)
		}
	}
}

// pause is the time until the next regular check. One that has just gone out
// is looked at more often: it may have been too busy for a moment.
func (c *checker) pause() time.Duration {
	interval := c.settings().Interval.Std()
	if c.backend.target.State() == upstream.Down && time.Since(c.out) < backSoon {
		return min(interval, backPause)
	}
	return pace.Next(interval)
}

func (c *checker) settings() site.Health { return c.balancer.now.Load().site.Balancer.Health }

// regular checks once. A suspicion in the middle of it makes it urgent.
func (c *checker) regular(ctx context.Context) {
	checking, stop := context.WithCancel(ctx)
	defer stop()
	result := make(chan verdict, 1)
	go func() { result <- c.probe(checking, c.settings().Timeout.Std()) }()
	select {
	case v := <-result:
		c.count(ctx, v)
	case <-c.backend.kick:
		stop()
		<-result
		c.urgent(ctx)
	}
}

// suspected looks at once, unless it just did or the backend is out anyway.
func (c *checker) suspected(ctx context.Context) {
	if time.Since(c.last) < urgentPause || c.backend.target.State() == upstream.Down {
		return
	}
	c.urgent(ctx)
}

// urgent checks until the backend answers or is out. Only one is put out so
// quickly: when another is out already, the wait may be this server's own (all
// its processors busy), and the rest get the patience of regular checks.
func (c *checker) urgent(ctx context.Context) {
	set := c.settings()
	if !c.othersUp() {
		c.count(ctx, c.probe(ctx, set.Timeout.Std()))
		return
	}
	var v verdict
	for range min(set.Fall, urgentFall) {
		v = c.probe(ctx, min(set.Timeout.Std(), urgentTimeout))
		c.last = time.Now()
		if v.state != upstream.Down {
			break
		}
	}
	if v.state == upstream.Down && ctx.Err() == nil && c.othersUp() {
		c.tally(v.state)
		c.enter(v)
		return
	}
	c.count(ctx, v)
}

// othersUp reports whether all other backends are up, and there is one.
func (c *checker) othersUp() bool {
	others := 0
	for _, k := range c.balancer.now.Load().backends {
		if k == c.backend {
			continue
		}
		if k.target.State() != upstream.Up {
			return false
		}
		others++
	}
	return others > 0
}

// count draws the conclusion from one check: Rise good ones bring a backend
// in, Fall bad ones take it out, and the very first decides alone. One that
// answers, however badly, is not taken for down before Fall silences in a row:
// going down takes back what waits for it.
func (c *checker) count(ctx context.Context, v verdict) {
	if ctx.Err() != nil {
		return
	}
	c.last = time.Now()
	c.tally(v.state)
	set, state := c.settings(), c.backend.target.State()
	switch {
	case state == upstream.Untested, v.state == upstream.Up && c.good >= set.Rise:
		c.enter(v)
	case v.state == upstream.Up || state == upstream.Up && c.bad < set.Fall:
		// not often enough yet
	case v.state == upstream.Down && state != upstream.Down && c.silent < set.Fall:
		c.enter(verdict{upstream.Unwell, v.why})
	default:
		c.enter(v)
	}
}

func (c *checker) tally(s upstream.State) {
	good, bad, silent := c.good+1, c.bad+1, c.silent+1
	c.good, c.bad, c.silent = 0, 0, 0
	switch s {
	case upstream.Up:
		c.good = good
	case upstream.Down:
		c.bad, c.silent = bad, silent
	default:
		c.bad = bad
	}
}

// enter makes v the backend's state.
func (c *checker) enter(v verdict) {
	former := c.backend.set(v.state, v.why)
	if former == v.state {
		return
	}
	if v.state == upstream.Down {
		c.out = time.Now()
	}
	up := 0.0
	if v.state == upstream.Up {
		up = 1
	}
	c.balancer.meters.up.WithLabelValues(c.backend.name).Set(up)
}

// probe sends one check and waits for it up to timeout.
func (c *checker) probe(ctx context.Context, timeout time.Duration) verdict {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s := c.balancer.now.Load().site
	wait := strconv.AppendInt(nil, timeout.Milliseconds(), 10)
	status, line, err := c.backend.target.Probe(limited, s.Domain, s.Balancer.Health.Path, []wire.Field{
		{Name: checkHeader, Value: wait, Kind: wire.Trivet}, {Name: userAgent, Value: agent, Kind: wire.UserAgent},
	})
	if err != nil {
		if limited.Err() != nil {
			return verdict{upstream.Down, fmt.Sprintf("no answer within %s", timeout)}
		}
		return verdict{upstream.Down, err.Error()}
	}
	if !s.Balancer.Health.Well(status) {
		return verdict{upstream.Unwell, fmt.Sprintf("its check answers %d: %s", status, line)}
	}
	return verdict{state: upstream.Up}
}
