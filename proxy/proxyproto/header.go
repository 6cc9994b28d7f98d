// Package proxyproto writes and reads the header of the PROXY protocol,
// version 2 (HAProxy's doc/proxy-protocol.txt), by which one server tells the
// next who the visitor of a connection is.
//
// It is for servers that trust each other. Reading is strict and bounded: a
// header of another version or family, with anything cut off, twice or with a
// wrong checksum is refused, and not a byte beyond it is read.
package proxyproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
)

// Max is how many bytes a header may take.
const Max = 4 << 10

// First is the byte that every header begins with, and no TLS handshake does.
const First = '\r'

// Bounds of what a header says besides addresses.
const (
	maxAuthority = 255
	maxALPN      = 255
	maxUniqueID  = 128 // by the specification
)

// Header is what a header says.
type Header struct {
	// Local says that the connection is the proxy's own, such as a health check;
	// everything else is empty then, and the connection's own addresses hold.
	Local bool
	// Datagram says that it is UDP, not TCP.
	Datagram bool
	// Source is the visitor, Destination what it connected to.
	Source, Destination netip.AddrPort
	// Authority is the server name that the visitor asked for; ALPN the protocol
	// agreed on; UniqueID names the connection. Empty: not known.
	Authority, ALPN, UniqueID []byte
}

const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	fixed     = len(signature) + 4

	version2 = 0x20
	local    = 0x00
	proxied  = 0x01

	families = 0xf0
	ip4      = 0x10
	ip6      = 0x20
	stream   = 0x01
	datagram = 0x02

	typeALPN      = 0x01
	typeAuthority = 0x02
	typeChecksum  = 0x03
	typeUniqueID  = 0x05
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendV2 appends the header to dst, with a checksum. An IPv4 address beside
// an IPv6 one is written as IPv4-mapped; zones are left out.
func AppendV2(dst []byte, h *Header) ([]byte, error) {
	start := len(dst)
	out := append(dst, signature...)
	if h.Local {
		return append(out, version2|local, 0, 0, 0), nil
	}
	if err := h.check(); err != nil {
		return dst, fmt.Errorf("write PROXY header: %w", err)
	}
	out = append(out, version2|proxied, h.family(), 0, 0)
	out = h.appendAddresses(out)
	out = appendValue(out, typeALPN, h.ALPN)
	out = appendValue(out, typeAuthority, h.Authority)
	out = appendValue(out, typeUniqueID, h.UniqueID)
	out = append(out, typeChecksum, 0, 4, 0, 0, 0, 0)
	binary.BigEndian.PutUint16(out[start+fixed-2:], uint16(len(out)-start-fixed))
	binary.BigEndian.PutUint32(out[len(out)-4:], crc32.Checksum(out[start:], castagnoli))
	return out, nil
}

func (h *Header) check() error {
	switch {
	case !h.Source.IsValid() || !h.Destination.IsValid():
		return errors.New("an address is missing")
	case len(h.Authority) > maxAuthority:
		return errors.New("authority is too long")
	case len(h.ALPN) > maxALPN:
		return errors.New("protocol is too long")
	case len(h.UniqueID) > maxUniqueID:
		return errors.New("unique ID is too long")
	}
	return nil
}

func (h *Header) is4() bool {
	return h.Source.Addr().Unmap().Is4() && h.Destination.Addr().Unmap().Is4()
}

func (h *Header) family() byte {
	f := byte(ip6)
	if h.is4() {
		f = ip4
	}
	if h.Datagram {
		return f | datagram
	}
	return f | stream
}

func (h *Header) appendAddresses(b []byte) []byte {
	if h.is4() {
		src, dst := h.Source.Addr().Unmap().As4(), h.Destination.Addr().Unmap().As4()
		b = append(append(b, src[:]...), dst[:]...)
	} else {
		src, dst := h.Source.Addr().As16(), h.Destination.Addr().As16()
		b = append(append(b, src[:]...), dst[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, h.Source.Port())
	return binary.BigEndian.AppendUint16(b, h.Destination.Port())
}

func appendValue(b []byte, kind byte, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
	return append(b, v...)
}
