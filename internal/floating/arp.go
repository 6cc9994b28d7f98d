package floating

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Operations of ARP (RFC 826).
const (
	arpRequest = 1
	arpReply   = 2
)

// arp is the wire for IPv4.
type arp struct {
	socket
	nic  *net.Interface
	addr netip.Addr
}

func openARP(nic *net.Interface, addr netip.Addr) (*arp, error) {
	// Made without a protocol and bound with one: nothing of other interfaces comes in between.
	s, err := openSocket(unix.AF_PACKET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(int(s), &unix.SockaddrLinklayer{Protocol: network16(unix.ETH_P_ARP), Ifindex: nic.Index}); err != nil {
		s.close()
		return nil, err
	}
	return &arp{s, nic, addr}, nil
}

// announce sends both forms, for some neighbours heed only one of them.
func (a *arp) announce() error {
	own, all := a.addr.As4(), broadcast()
	return errors.Join(
		a.broadcast(packet(arpRequest, a.nic.HardwareAddr, own, make([]byte, 6), own)),
		a.broadcast(packet(arpReply, a.nic.HardwareAddr, own, all, own)))
}

// probe asks without saying an address of our own, so that no neighbour's table changes.
func (a *arp) probe() error {
	return a.broadcast(packet(arpRequest, a.nic.HardwareAddr, [4]byte{}, make([]byte, 6), a.addr.As4()))
}

func (a *arp) heard(ctx context.Context, by time.Time) (net.HardwareAddr, error) {
	return a.hear(ctx, by, a.nic, func(p []byte) (net.HardwareAddr, bool) { return claims(p, a.addr) })
}

func (a *arp) broadcast(p []byte) error {
	to := &unix.SockaddrLinklayer{Protocol: network16(unix.ETH_P_ARP), Ifindex: a.nic.Index, Halen: 6}
	copy(to.Addr[:], broadcast())
	return a.send(p, to)
}

func broadcast() []byte { return bytes.Repeat([]byte{0xff}, 6) }

// packet writes an ARP packet for Ethernet and IPv4.
func packet(operation uint16, senderMAC []byte, sender [4]byte, targetMAC []byte, target [4]byte) []byte {
	p := []byte{0, 1, 8, 0, 6, 4} // Ethernet, IPv4, their addresses' lengths
	p = binary.BigEndian.AppendUint16(p, operation)
	p = append(append(p, senderMAC...), sender[:]...)
	return append(append(p, targetMAC...), target[:]...)
}

// claims reports whether the sender of an ARP packet says that it has addr.
func claims(p []byte, addr netip.Addr) (net.HardwareAddr, bool) {
	if len(p) < 28 || !bytes.Equal(p[:6], []byte{0, 1, 8, 0, 6, 4}) {
		return nil, false
	}
	return net.HardwareAddr(p[8:14]), [4]byte(p[14:18]) == addr.As4()
}

// network16 is n in the network's byte order, as the kernel wants protocols.
func network16(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}
