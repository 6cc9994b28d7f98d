// Package certificate issues what encrypts every hop: an identity for each
// part of this server, by which the servers know each other, and certificates
// for the visitors of the site and the console. All of them renew themselves
// after two thirds of their lifetime; nothing here serves a connection.
//
// The two kinds come from two separate roots, so that what a browser is told
// to trust cannot speak as a server, nor the other way round. Identities are
// made anew at each start and live in memory, but for the node's, which etcd
// reads from files. Visitors' certificates are kept on the disk.
package certificate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"trivet/internal/metric"
	"trivet/internal/part"
)

// Names of the visitors' certificates in List; an identity is named by its part.
const (
	Site    = "site"
	Console = "console"
)

// Kinds of certificates.
const (
	KindIdentity = "identity" // between servers
	KindVisitor  = "visitor"  // shown to browsers
)

const (
	look     = time.Minute // the longest wait: a clock that was set, or a machine that slept, is noticed then
	retry    = 10 * time.Second
	noState  = "no state yet"
	critical = 6 // a part that has less than a sixth of its lifetime left is not healthy
)

// Config says what is issued, by whom, and who hears of it.
type Config struct {
	Log        *slog.Logger
	Metrics    *metric.Registry
	Server     string     // that this runs on
	Identities *Authority // signs the servers' identities
	Visitors   *Authority // signs what browsers see; nil: no certificates for visitors
	Changed    func()     // after anything was issued; must not block; may be nil
	Parts      []string   // that get an identity
	FilesDir   string     // holds cluster-tls/{cert,key,ca}.pem and certificate/; empty: nothing is written
}

// Certificates is the part.
type Certificates struct {
	conf   Config
	expiry *metric.GaugeVec
	wake   chan struct{}

	mu      sync.Mutex
	applied bool
	issued  map[string]*issued
	failed  error // of the last renewal
}

// issued is a certificate that is in force.
type issued struct {
	request Request
	pair    part.KeyPair
	serial  string
	begins  time.Time
	ends    time.Time
	renews  time.Time
}

// Info describes a certificate in force.
type Info struct {
	Name      string    `json:"name"`
	Kind      string    `json:"kind"`
	Names     []string  `json:"names,omitempty"` // host names and addresses that it proves
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Renews    time.Time `json:"renews"`
}

// New returns the part; Apply issues.
func New(c Config) *Certificates {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = metric.NewRegistry()
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	return &Certificates{
		conf:   c,
		expiry: c.Metrics.Gauge("trivet_certificate_expiry_seconds", "Unix time at which the certificate ends.", "name"),
		wake:   make(chan struct{}, 1),
		issued: map[string]*issued{},
	}
}

// Apply issues what s needs and is not there yet, or is for something else. On
// error everything that was in force stays.
func (c *Certificates) Apply(_ context.Context, s part.State) error {
	if s.Site == nil {
		return errors.New(noState)
	}
	want, err := plan(s, c.conf.Server, c.conf.Parts, c.conf.Visitors != nil)
	if err != nil {
		return err
	}
	return c.change(func() (bool, error) { return c.converge(want) })
}

// change runs f under the lock and then tells of what it changed.
func (c *Certificates) change(f func() (changed bool, err error)) error {
	c.mu.Lock()
	changed, err := f()
	c.mu.Unlock()
	if changed {
		c.conf.Changed()
	}
	return err
}

// converge makes what is in force match want; c.mu is held.
func (c *Certificates) converge(want map[string]Request) (changed bool, err error) {
	fresh := map[string]*issued{}
	for name, r := range want {
		if old := c.issued[name]; old != nil && old.request.equal(r) {
			continue
		}
		if fresh[name], err = c.obtain(name, r); err != nil {
			return false, fmt.Errorf("issue certificate %s: %w", name, err)
		}
	}
	if err := c.adopt(fresh); err != nil {
		return false, err
	}
	for name := range c.issued {
		if _, ok := want[name]; !ok {
			delete(c.issued, name)
			c.expiry.DeleteLabelValues(name)
		}
	}
	c.applied = true
	c.poke()
	return len(fresh) > 0, nil
}

// Run renews until ctx ends.
func (c *Certificates) Run(ctx context.Context) error {
	for {
		t := time.NewTimer(c.wait())
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-c.wake:
		case <-t.C:
		}
		t.Stop()
		c.renewDue()
	}
}

// wait is how long until something may be due.
func (c *Certificates) wait() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := look
	for _, i := range c.issued {
		wait = min(wait, time.Until(i.renews))
	}
	if c.failed != nil {
		return max(wait, retry)
	}
	return max(wait, 0)
}

func (c *Certificates) renewDue() {
	_ = c.change(func() (bool, error) { return c.renew(c.due()) }) // it logs, and Check tells
}

// due lists what is to be renewed now; c.mu is held.
func (c *Certificates) due() []string {
	now := time.Now()
	var due []string
	for name, i := range c.issued {
		if !now.Before(i.renews) || now.Before(i.begins) {
			due = append(due, name)
		}
	}
	return due
}

// Renew issues the named certificates anew, all if none is named, at once.
func (c *Certificates) Renew(names ...string) error {
	return c.change(func() (bool, error) {
		if len(names) == 0 {
			names = slices.Collect(maps.Keys(c.issued))
		}
		for _, name := range names {
			if c.issued[name] == nil {
				return false, fmt.Errorf("renew certificate %s: there is none of that name", name)
			}
		}
		return c.renew(names)
	})
}

// renew issues the named certificates anew; c.mu is held.
func (c *Certificates) renew(names []string) (changed bool, err error) {
	if len(names) == 0 {
		c.failed = nil
		return false, nil
	}
	fresh := map[string]*issued{}
	for _, name := range names {
		if fresh[name], err = c.issue(c.issued[name].request); err != nil {
			err = fmt.Errorf("renew certificate %s: %w", name, err)
			break
		}
	}
	if err == nil {
		err = c.adopt(fresh)
	}
	if err != nil && (c.failed == nil || c.failed.Error() != err.Error()) {
		c.conf.Log.Error("certificates are not renewed", "err", err)
	}
	c.failed = err
	return err == nil, err
}

// adopt brings fresh into force: to the disk, then to those who ask. c.mu is held.
func (c *Certificates) adopt(fresh map[string]*issued) error {
	if len(fresh) == 0 {
		return nil
	}
	if err := c.write(fresh); err != nil {
		return err
	}
	for name, i := range fresh {
		c.issued[name] = i
		c.expiry.WithLabelValues(name).Set(float64(i.ends.Unix()))
	}
	c.conf.Log.Debug("certificates issued", "names", slices.Sorted(maps.Keys(fresh)))
	return nil
}

// obtain takes a visitors' certificate from the disk if it still serves r, or issues one.
func (c *Certificates) obtain(name string, r Request) (*issued, error) {
	if r.Visitor {
		if i, ok := c.load(name, r); ok {
			return i, nil
		}
	}
	return c.issue(r)
}

func (c *Certificates) issue(r Request) (*issued, error) {
	by := c.conf.Identities
	if r.Visitor {
		by = c.conf.Visitors
	}
	pair, err := by.Issue(r)
	if err != nil {
		return nil, err
	}
	return describe(r, pair)
}

// describe reads from the certificate when it is to be renewed: after two
// thirds of its lifetime and a little more, so that not all are due at once.
func describe(r Request, pair part.KeyPair) (*issued, error) {
	leaf, err := parseLeaf(pair.Certificate)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	from := leaf.NotBefore.Add(backdate)
	life := leaf.NotAfter.Sub(from)
	return &issued{
		request: r, pair: pair, serial: fmt.Sprintf("%x", leaf.SerialNumber),
		begins: leaf.NotBefore, ends: leaf.NotAfter,
		renews: from.Add(life*2/3 + rand.N(life/20+1)),
	}, nil
}

func (c *Certificates) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Check is nil when every certificate has more than a sixth of its lifetime left.
func (c *Certificates) Check(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.applied {
		return errors.New(noState)
	}
	now := time.Now()
	for _, a := range []*Authority{c.conf.Identities, c.conf.Visitors} {
		if a == nil {
			continue
		}
		if err := a.valid(now); err != nil {
			return err
		}
	}
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(c.issued)) {
		if err := c.issued[name].check(name, now); err != nil {
			problems = append(problems, err.Error())
		}
	}
	if len(problems) == 0 {
		return nil
	}
	if c.failed != nil {
		problems = append(problems, c.failed.Error())
	}
	return errors.New(strings.Join(problems, "; "))
}

func (i *issued) check(name string, now time.Time) error {
	left := i.ends.Sub(now)
	switch {
	case now.Before(i.begins):
		return fmt.Errorf("this server's clock was set back: it shows %s, but certificate %s begins %s", stamp(now), name, stamp(i.begins))
	case left <= 0:
		return fmt.Errorf("certificate %s ended %s", name, stamp(i.ends))
	case left <= i.ends.Sub(i.begins)/critical:
		return fmt.Errorf("certificate %s ends in %s and was not renewed", name, left.Round(time.Second))
	}
	return nil
}

// Identity returns the part's identity; empty if it has none.
func (c *Certificates) Identity(partName string) part.KeyPair {
	return c.pair(partName)
}

// Bundle returns the roots that sign the servers' identities.
func (c *Certificates) Bundle() []byte {
	cert, _ := c.conf.Identities.PEM()
	return cert
}

// Site returns the certificates for the site's names.
func (c *Certificates) Site() []part.KeyPair {
	if p := c.pair(Site); p.Certificate != nil {
		return []part.KeyPair{p}
	}
	return nil
}

// Console returns the certificate for the console.
func (c *Certificates) Console() part.KeyPair { return c.pair(Console) }

func (c *Certificates) pair(name string) part.KeyPair {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := c.issued[name]; i != nil {
		return i.pair
	}
	return part.KeyPair{}
}

// List describes all certificates in force, visitors' first, each kind by name.
func (c *Certificates) List() []Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Info
	for name, i := range c.issued {
		info := Info{Name: name, Kind: KindIdentity, Names: slices.Clone(i.request.Names), Serial: i.serial, NotBefore: i.begins, NotAfter: i.ends, Renews: i.renews}
		if i.request.Visitor {
			info.Kind = KindVisitor
		}
		for _, a := range i.request.Addresses {
			info.Names = append(info.Names, a.String())
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b Info) int {
		return cmp.Or(-cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return list
}
