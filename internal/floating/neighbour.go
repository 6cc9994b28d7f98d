package floating

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Messages, options and flags of neighbour discovery (RFC 4861, 4.3, 4.4 and 4.6.1).
const (
	neighbourSolicit = 135
	neighbourAdvert  = 136
	sourceMAC        = 1
	targetMAC        = 2
	override         = 0x20
)

// neighbour is the wire for IPv6. The kernel fills in checksums.
type neighbour struct {
	socket
	nic  *net.Interface
	addr netip.Addr
}

func openNeighbour(nic *net.Interface, addr netip.Addr) (*neighbour, error) {
	s, err := openSocket(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
	if err != nil {
		return nil, err
	}
	// Hop limit 255 proves to receivers that no router passed the packet on.
	err = errors.Join(
		unix.BindToDevice(int(s), nic.Name),
		unix.SetsockoptInt(int(s), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, nic.Index),
		unix.SetsockoptInt(int(s), unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255))
	if err != nil {
		s.close()
		return nil, err
	}
	return &neighbour{s, nic, addr}, nil
}

// announce is the unsolicited advertisement to all nodes (RFC 4861, 7.2.6).
func (n *neighbour) announce() error {
	return n.send(n.message(neighbourAdvert, override, targetMAC), n.group(netip.IPv6LinkLocalAllNodes()))
}

func (n *neighbour) probe() error {
	target := n.addr.As16()
	group := [16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: target[13], 14: target[14], 15: target[15]} // RFC 4291, 2.7.1
	return n.send(n.message(neighbourSolicit, 0, sourceMAC), n.group(netip.AddrFrom16(group)))
}

func (n *neighbour) heard(ctx context.Context, by time.Time) (net.HardwareAddr, error) {
	return n.hear(ctx, by, n.nic, func(p []byte) (net.HardwareAddr, bool) { return advertises(p, n.addr) })
}

func (n *neighbour) group(a netip.Addr) unix.Sockaddr {
	return &unix.SockaddrInet6{Addr: a.As16(), ZoneId: uint32(n.nic.Index)}
}

// message writes a message about the address with our MAC as its one option.
func (n *neighbour) message(kind, flags, option byte) []byte {
	m := []byte{kind, 0, 0, 0, flags, 0, 0, 0}
	m = append(m, n.addr.AsSlice()...)
	m = append(m, option, 1)
	return append(m, n.nic.HardwareAddr...)
}

// advertises reports whether p is an advertisement of addr, and by which MAC.
func advertises(p []byte, addr netip.Addr) (net.HardwareAddr, bool) {
	if len(p) < 32 || p[0] != neighbourAdvert || [16]byte(p[8:24]) != addr.As16() {
		return nil, false
	}
	return net.HardwareAddr(p[26:32]), p[24] == targetMAC && p[25] == 1
}
