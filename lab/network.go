package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"trivet/internal/link"
	"trivet/internal/netns"
)

// Cut unplugs the server's cable: nothing goes in or out, the server runs on.
func (l *Lab) Cut(ctx context.Context, server string) error {
	return l.plug(ctx, server, "cut", func() error { return link.SetDown(l.Cable(server)) })
}

// Heal plugs the server's cable in again, and ends what Lose does.
func (l *Lab) Heal(ctx context.Context, server string) error {
	return l.plug(ctx, server, "heal", func() error { return l.whole(ctx, server) })
}

func (l *Lab) plug(ctx context.Context, server, verb string, set func() error) error {
	unlock, err := l.lockServer(ctx, server)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := l.init(server); err != nil {
		return fmt.Errorf("%s %s: %w", verb, server, err)
	}
	if err := set(); err != nil {
		return fmt.Errorf("%s %s: %w", verb, server, err)
	}
	return nil
}

// plugged reports whether the server's cable is there and up.
func (l *Lab) plugged(server string) bool {
	i, err := net.InterfaceByName(l.Cable(server))
	return err == nil && i.Flags&net.FlagUp != 0
}

func (l *Lab) freeRange() error {
	used, err := link.Overlap(l.Subnet, l.Bridge())
	if err != nil {
		return fmt.Errorf("look whether network %s is free: %w", l.Subnet, err)
	}
	if used != "" {
		return fmt.Errorf("network %s is in use: %s; take another with --subnet", l.Subnet, used)
	}
	return nil
}

// ensureBridge makes the bridge if it is not there, for example after the machine started anew.
func (l *Lab) ensureBridge() error {
	if there, err := link.Exists(l.Bridge()); there || err != nil {
		return err
	}
	if err := l.freeRange(); err != nil {
		return err
	}
	if err := link.CreateBridge(l.Bridge(), netip.PrefixFrom(l.Operator(), l.Subnet.Bits())); err != nil {
		return errors.Join(err, link.DeleteLink(l.Bridge()))
	}
	// With snooping, multicast stops minutes after a server's start, for nobody
	// here asks who listens. A switch has a flag for each port; this is all of them.
	if err := sysctl("/sys/class/net/"+l.Bridge()+"/bridge/multicast_snooping", "0"); err != nil {
		return errors.Join(err, link.DeleteLink(l.Bridge()))
	}
	if err := noIPv6(l.Bridge()); err != nil {
		return errors.Join(err, link.DeleteLink(l.Bridge()))
	}
	return nil
}

// wire makes the server's network namespace and its cable to the bridge, with
// address and default route.
func (l *Lab) wire(server string) error {
	name := l.Namespace(server)
	if err := netns.Create(name); err != nil {
		return err
	}
	inside, err := os.Open(netns.Path(name))
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer func() { _ = inside.Close() }()
	if err := netns.Do(name, func() error { return noIPv6("default") }); err != nil {
		return err
	}
	cable := l.Cable(server)
	if err := link.CreateVeth(cable, "eth0", inside); err != nil {
		return err
	}
	if err := noIPv6(cable); err != nil {
		return err
	}
	if err := link.SetMaster(cable, l.Bridge()); err != nil {
		return err
	}
	if err := link.SetUp(cable); err != nil {
		return err
	}
	return netns.Do(name, func() error { return l.wireInside(server) })
}

func (l *Lab) wireInside(server string) error {
	if err := link.SetUp("lo"); err != nil {
		return err
	}
	if err := link.AddAddress("eth0", netip.PrefixFrom(l.Address(server), l.Subnet.Bits())); err != nil {
		return err
	}
	if err := link.SetUp("eth0"); err != nil {
		return err
	}
	return link.AddDefaultRoute(l.Operator())
}

// unplug takes the server's cable away, with all that is on its way, so that
// no closing word of a dying process reaches anybody.
func (l *Lab) unplug(server string) error {
	if err := link.SetDown(l.Cable(server)); err != nil && !errors.Is(err, link.ErrNotFound) {
		return err
	}
	return link.DeleteLink(l.Cable(server))
}

// noIPv6 keeps IPv6 off an interface ("default": those to come) of the
// calling thread's network namespace: its address detection would delay the
// start, and the lab has no use for it.
func noIPv6(ifname string) error {
	err := sysctl("/proc/sys/net/ipv6/conf/"+ifname+"/disable_ipv6", "1")
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	return err
}

func sysctl(path, value string) error {
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s to %s: %w", path, value, err)
	}
	return nil
}
