package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// AddAddress puts prefix.Addr on the interface with prefix's length. An IPv6
// address can be used at once: no duplicate address detection (RFC 4862 5.4).
func AddAddress(ifname string, prefix netip.Prefix) error {
	l, err := find(ifname)
	if err != nil {
		return fmt.Errorf("add address %s: %w", prefix, err)
	}
	if err := netlink.AddrAdd(l, address(prefix)); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("add address %s to %s: %w", prefix, ifname, err)
	}
	return nil
}

// DelAddress takes the address off the interface.
func DelAddress(ifname string, prefix netip.Prefix) error {
	l, err := find(ifname)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete address %s: %w", prefix, err)
	}
	if err := netlink.AddrDel(l, address(prefix)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("delete address %s from %s: %w", prefix, ifname, err)
	}
	return nil
}

// InterfaceOf names the interface that carries the address, with any length;
// the error is ErrNotFound if none does.
func InterfaceOf(addr netip.Addr) (string, error) {
	all, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return "", fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		if toPrefix(a.IPNet).Addr() == addr.Unmap() {
			return nameOf(a.LinkIndex), nil
		}
	}
	return "", fmt.Errorf("%w: none carries %s", ErrNotFound, addr)
}

// Carrier is the interface that carries an address.
type Carrier struct {
	Name    string
	Running bool // its cable has a signal (IFF_RUNNING, netdevice(7))
	Other   bool // it carries the other address that was asked about
}

// CarrierOf finds the interface that carries addr, with any length, and whether
// the same carries other, with exactly that length. The error is ErrNotFound if
// none carries addr. It asks the kernel twice, whatever there is.
func CarrierOf(addr netip.Addr, other netip.Prefix) (Carrier, error) {
	all, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return Carrier{}, fmt.Errorf("list addresses: %w", err)
	}
	i := slices.IndexFunc(all, func(a netlink.Addr) bool { return toPrefix(a.IPNet).Addr() == addr.Unmap() })
	if i < 0 {
		return Carrier{}, fmt.Errorf("%w: none carries %s", ErrNotFound, addr)
	}
	index := all[i].LinkIndex
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return Carrier{}, fmt.Errorf("look at interface %d, which carries %s: %w", index, addr, err)
	}
	return Carrier{
		Name:    l.Attrs().Name,
		Running: l.Attrs().RawFlags&unix.IFF_RUNNING != 0,
		Other:   slices.ContainsFunc(all, func(a netlink.Addr) bool { return a.LinkIndex == index && toPrefix(a.IPNet) == other }),
	}, nil
}

// Overlap says what already uses a part of the network, in words such as
// "interface eth0 has 10.77.0.3/24"; "" if nothing does. Default routes do not
// count, nor does what belongs to the interfaces named in except.
func Overlap(network netip.Prefix, except ...string) (string, error) {
	used, err := overlappingAddress(network, except)
	if used != "" || err != nil {
		return used, err
	}
	return overlappingRoute(network, except)
}

func overlappingAddress(network netip.Prefix, except []string) (string, error) {
	all, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return "", fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		name := nameOf(a.LinkIndex)
		if p := toPrefix(a.IPNet); p.Overlaps(network) && !slices.Contains(except, name) {
			return fmt.Sprintf("interface %s has %s", name, p), nil
		}
	}
	return "", nil
}

func overlappingRoute(network netip.Prefix, except []string) (string, error) {
	all, err := complete(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
	}
	for _, r := range all {
		name := nameOf(r.LinkIndex)
		if p := toPrefix(r.Dst); p.IsValid() && p.Bits() > 0 && p.Overlaps(network) && !slices.Contains(except, name) {
			return fmt.Sprintf("a route to %s leads over %s", p, name), nil
		}
	}
	return "", nil
}

func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: toIPNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// nameOf returns the interface's name, or its number when it is gone meanwhile.
func nameOf(index int) string {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("#%d", index)
	}
	return l.Attrs().Name
}

// complete repeats a listing that the kernel says changed while it was read.
func complete[T any](list func() ([]T, error)) ([]T, error) {
	for range 10 {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return list()
}
