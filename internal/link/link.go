// Package link is the machine's network interfaces: addresses put on and taken
// off, and the bridge and cables that a lab is wired with. It is the only
// importer of vishvananda/netlink.
//
// Every function speaks of the network namespace of the calling thread; wrap
// it in netns.Do to speak of another. What is already so is no error: adding
// what is there and deleting what is not both return nil.
package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNotFound says that no interface has that name or address.
var ErrNotFound = errors.New("no such interface")

// CreateBridge makes the bridge name, gives it prefix (its own address with
// the network's length) and sets it up.
func CreateBridge(name string, prefix netip.Prefix) error {
	attrs := named(name)
	attrs.HardwareAddr = fixedAddress(name)
	err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	if err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("create bridge %s: %w", name, err)
	}
	if err := AddAddress(name, prefix); err != nil {
		return err
	}
	return SetUp(name)
}

// CreateVeth makes a cable: its end host here, its end peer in the namespace
// whose file (such as /run/netns/s1 or /proc/123/ns/net) is open as namespace.
// Both ends are down. Unlike the others it is an error if host exists.
func CreateVeth(host, peer string, namespace *os.File) error {
	err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: named(host),
		PeerName:  peer,
		// Like a real interface it keeps its address from one power on to the
		// next, or the neighbours would send to the old one for a while.
		PeerHardwareAddr: fixedAddress(host + " " + peer),
		PeerNamespace:    netlink.NsFd(int(namespace.Fd())),
	})
	if err != nil {
		return fmt.Errorf("create cable %s to %s: %w", host, peer, err)
	}
	return nil
}

// DeleteLink removes the interface; a cable goes with both its ends.
func DeleteLink(name string) error {
	l, err := find(name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete link: %w", err)
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}

// Exists reports whether an interface has that name.
func Exists(name string) (bool, error) {
	_, err := find(name)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// SetMaster plugs the interface into a bridge; an empty bridge unplugs it.
func SetMaster(name, bridge string) error {
	l, err := find(name)
	if err != nil {
		return fmt.Errorf("plug into bridge %q: %w", bridge, err)
	}
	if bridge == "" {
		return wrap(netlink.LinkSetNoMaster(l), "unplug "+name)
	}
	b, err := find(bridge)
	if err != nil {
		return fmt.Errorf("plug %s: %w", name, err)
	}
	return wrap(netlink.LinkSetMaster(l, b), "plug "+name+" into "+bridge)
}

// SetUp switches the interface on.
func SetUp(name string) error { return set(name, "up", netlink.LinkSetUp) }

// SetDown switches the interface off.
func SetDown(name string) error { return set(name, "down", netlink.LinkSetDown) }

func set(name, state string, f func(netlink.Link) error) error {
	l, err := find(name)
	if err != nil {
		return fmt.Errorf("set link %s: %w", state, err)
	}
	return wrap(f(l), "set link "+name+" "+state)
}

// AddDefaultRoute sends all that has no closer route to gateway.
func AddDefaultRoute(gateway netip.Addr) error {
	err := netlink.RouteReplace(&netlink.Route{Gw: gateway.AsSlice()})
	return wrap(err, "add default route by "+gateway.String())
}

func named(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

func find(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", name, err)
	}
	return l, nil
}

func wrap(err error, what string) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func toPrefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
