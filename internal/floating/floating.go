// Package floating is the site's floating address: put on and taken off the
// interface of one server, announced so that the neighbours turn to it at
// once, and probed before it is taken.
//
// For IPv4 this is ARP (RFC 826, announcement and probe by RFC 5227), for IPv6
// neighbour discovery (RFC 4861). The address has the full prefix length, so
// that no route comes or goes with it and nothing is sent from it by choice.
// Who holds it is agreed elsewhere; the package only does what it is told.
package floating

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"trivet/internal/link"
)

// pauses lie before the announcements that follow the first.
var pauses = []time.Duration{300 * time.Millisecond, 600 * time.Millisecond}

// patience is how long Probe waits for another machine's answer, and again is
// when it asks a second time.
const (
	patience = 300 * time.Millisecond
	again    = 120 * time.Millisecond
)

// Address is the floating address as one server sees it.
type Address struct {
	addr, server netip.Addr
	log          *slog.Logger

	mu        sync.Mutex
	announcer sync.WaitGroup // of the announcements under way
	stop      chan struct{}  // closed: they end; nil: there are none
}

// New returns the floating address addr for the server whose own address is
// server: the interface that carries server will carry addr. It does no I/O.
func New(addr, server netip.Addr, log *slog.Logger) *Address {
	return &Address{addr: addr.Unmap(), server: server.Unmap(), log: log}
}

// Hold puts the address on the interface if it is not there, and announces it:
// thrice within a second when it is new, the later ones in the background,
// otherwise once.
func (a *Address) Hold(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	ifname, held, err := a.held()
	if err != nil {
		return fmt.Errorf("hold address %s: %w", a.addr, err)
	}
	if !held {
		if err := quiet(ifname); err != nil {
			return fmt.Errorf("hold address %s: %w", a.addr, err)
		}
		if err := link.AddAddress(ifname, a.prefix()); err != nil {
			return fmt.Errorf("hold address %s: %w", a.addr, err)
		}
		a.log.Info("floating address taken", "address", a.addr.String(), "interface", ifname)
	}
	return a.announce(ifname, !held)
}

// quiet keeps the kernel from naming the floating address as the sender of its
// own ARP requests (arp_announce in the kernel's ip-sysctl.rst): a server that
// was cut off, and is plugged in again before it has let go of the address,
// would draw the neighbours to itself.
func quiet(ifname string) error {
	err := os.WriteFile("/proc/sys/net/ipv4/conf/"+ifname+"/arp_announce", []byte("2"), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // no IPv4, no ARP
	}
	return err
}

// Release takes the address off the interface, if it is there. No
// announcement is sent any more when Release returns.
func (a *Address) Release(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silence()
	ifname, held, err := a.held()
	if err != nil {
		return fmt.Errorf("release address %s: %w", a.addr, err)
	}
	if !held {
		return nil
	}
	if err := link.DelAddress(ifname, a.prefix()); err != nil {
		return fmt.Errorf("release address %s: %w", a.addr, err)
	}
	a.log.Info("floating address released", "address", a.addr.String(), "interface", ifname)
	return nil
}

// Look reports whether the interface carries the address, and whether its
// cable has a signal.
func (a *Address) Look() (held, connected bool, err error) {
	c, err := link.CarrierOf(a.server, a.prefix())
	return c.Other, c.Running, err
}

// Probe asks whether another machine has the address, and waits for an answer
// until ctx ends, at most 0.3 s. mac is that machine's.
func (a *Address) Probe(ctx context.Context) (taken bool, mac net.HardwareAddr, err error) {
	w, err := a.wire()
	if err != nil {
		return false, nil, fmt.Errorf("probe address %s: %w", a.addr, err)
	}
	defer w.close()
	began := time.Now()
	for _, end := range []time.Duration{again, patience} {
		if err := w.probe(); err != nil {
			return false, nil, fmt.Errorf("probe address %s: %w", a.addr, err)
		}
		mac, err := w.heard(ctx, began.Add(end))
		if err != nil {
			return false, nil, fmt.Errorf("probe address %s: %w", a.addr, err)
		}
		if mac != nil {
			return true, mac, nil
		}
	}
	return false, nil, nil
}

func (a *Address) prefix() netip.Prefix { return netip.PrefixFrom(a.addr, a.addr.BitLen()) }

// held names the server's interface and says whether it carries the address.
func (a *Address) held() (ifname string, held bool, err error) {
	c, err := link.CarrierOf(a.server, a.prefix())
	return c.Name, c.Other, err
}

// announce tells the neighbours now, and if the address is new here in the
// background again.
func (a *Address) announce(ifname string, isNew bool) error {
	w, err := a.wireOn(ifname)
	if err != nil {
		return fmt.Errorf("announce address %s: %w", a.addr, err)
	}
	if err := w.announce(); err != nil || !isNew {
		w.close()
		return err
	}
	a.silence()
	stop := make(chan struct{})
	a.stop = stop
	a.announcer.Go(func() {
		defer w.close()
		if err := repeat(w, stop); err != nil {
			a.log.Warn("announce floating address", "address", a.addr.String(), "err", err)
		}
	})
	return nil
}

// repeat announces after each pause until stop is closed.
func repeat(w wire, stop <-chan struct{}) error {
	for _, pause := range pauses {
		t := time.NewTimer(pause)
		select {
		case <-stop:
			t.Stop()
			return nil
		case <-t.C:
		}
		if err := w.announce(); err != nil {
			return err
		}
	}
	return nil
}

// silence ends the announcements under way.
func (a *Address) silence() {
	if a.stop != nil {
		close(a.stop)
		a.stop = nil
	}
	a.announcer.Wait()
}

// wire speaks to the neighbours on one interface, about one address.
type wire interface {
	announce() error
	probe() error
	// heard waits for another machine that says it has the address; nil when
	// there was none by then, or ctx ended.
	heard(ctx context.Context, by time.Time) (net.HardwareAddr, error)
	close()
}

func (a *Address) wire() (wire, error) {
	ifname, err := link.InterfaceOf(a.server)
	if err != nil {
		return nil, err
	}
	return a.wireOn(ifname)
}

func (a *Address) wireOn(ifname string) (wire, error) {
	nic, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, err
	}
	if len(nic.HardwareAddr) != 6 {
		return nil, errors.New("interface " + ifname + " is no Ethernet")
	}
	if a.addr.Is6() {
		return openNeighbour(nic, a.addr)
	}
	return openARP(nic, a.addr)
}
