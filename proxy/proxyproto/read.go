package proxyproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
)

// ErrIncomplete says that what came is the beginning of a header.
var ErrIncomplete = errors.New("PROXY header is incomplete")

// What is refused.
var (
	ErrSignature = errors.New("no PROXY header of version 2")
	ErrCommand   = errors.New("PROXY header has an unknown command")
	ErrFamily    = errors.New("PROXY header is not of TCP or UDP over IP")
	ErrLong      = errors.New("PROXY header is too long")
	ErrSyntax    = errors.New("PROXY header is malformed")
	ErrChecksum  = errors.New("PROXY header has a wrong checksum")
)

// Read reads a header from r and nothing beyond it. The header's slices point
// into b, if that has room for it (Max always has), else into memory of their own.
func Read(r io.Reader, b []byte) (Header, error) {
	if cap(b) < fixed {
		b = make([]byte, fixed, 256)
	}
	b = b[:fixed]
	if _, err := io.ReadFull(r, b); err != nil {
		return Header{}, fmt.Errorf("read PROXY header: %w", err)
	}
	size, err := sizeOf(b)
	if err != nil {
		return Header{}, err
	}
	if cap(b) < size {
		b = append(make([]byte, 0, size), b...)
	}
	b = b[:size]
	if _, err := io.ReadFull(r, b[fixed:]); err != nil {
		return Header{}, fmt.Errorf("read PROXY header: %w", err)
	}
	h, _, err := Parse(b)
	return h, err
}

// Parse reads the header that b begins with, and says how long it is;
// ErrIncomplete if it needs more than b.
func Parse(b []byte) (h Header, n int, err error) {
	n, err = sizeOf(b)
	if err != nil {
		return Header{}, 0, err
	}
	if len(b) < n {
		return Header{}, 0, ErrIncomplete
	}
	b = b[:n]
	if b[12] == version2|local {
		return Header{Local: true}, n, nil // the rest must be skipped unread
	}
	rest, err := h.readAddresses(b[13], b[fixed:])
	if err == nil {
		err = h.readValues(b, rest)
	}
	if err != nil {
		return Header{}, 0, err
	}
	return h, n, nil
}

// sizeOf is the length of the header that b begins with, up to 16 bytes of
// which are looked at: what is wrong in them is refused at once.
func sizeOf(b []byte) (int, error) {
	k := min(len(b), len(signature))
	if string(b[:k]) != signature[:k] {
		return 0, ErrSignature
	}
	if len(b) > 12 && b[12]&0xf0 != version2 {
		return 0, ErrSignature
	}
	if len(b) > 12 && b[12]&0x0f > proxied {
		return 0, ErrCommand
	}
	if len(b) < fixed {
		return 0, ErrIncomplete
	}
	n := fixed + int(binary.BigEndian.Uint16(b[fixed-2:]))
	if n > Max {
		return 0, ErrLong
	}
	return n, nil
}

func (h *Header) readAddresses(family byte, b []byte) (rest []byte, err error) {
	switch family &^ families {
	case stream:
	case datagram:
		h.Datagram = true
	default:
		return nil, ErrFamily
	}
	size := 0
	switch family & families {
	case ip4:
		size = 4
	case ip6:
		size = 16
	default:
		return nil, ErrFamily
	}
	if len(b) < 2*size+4 {
		return nil, ErrSyntax
	}
	h.Source = addrPort(b[:size], b[2*size:])
	h.Destination = addrPort(b[size:2*size], b[2*size+2:])
	return b[2*size+4:], nil
}

// addrPort leaves an IPv4-mapped address as IPv4, so that lists of networks hold for it.
func addrPort(address, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(address) // of 4 or 16 bytes
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}

// readValues reads what follows the addresses: type, length, value. Unknown types are skipped.
func (h *Header) readValues(header, b []byte) error {
	summed := false
	for len(b) > 0 {
		if len(b) < 3 {
			return ErrSyntax
		}
		kind, n := b[0], int(binary.BigEndian.Uint16(b[1:]))
		if b = b[3:]; len(b) < n {
			return ErrSyntax
		}
		value := b[:n:n]
		b = b[n:]
		var err error
		switch kind {
		case typeALPN:
			err = set(&h.ALPN, value, maxALPN)
		case typeAuthority:
			err = set(&h.Authority, value, maxAuthority)
		case typeUniqueID:
			err = set(&h.UniqueID, value, maxUniqueID)
		case typeChecksum:
			if summed || n != 4 {
				return ErrSyntax
			}
			summed = true
			err = verify(header, len(header)-len(b)-4)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func set(to *[]byte, value []byte, most int) error {
	if *to != nil || len(value) == 0 || len(value) > most {
		return ErrSyntax
	}
	*to = value
	return nil
}

var zeros = make([]byte, 4)

// verify compares the checksum at header[at:] with that of the header with zeros in its place.
func verify(header []byte, at int) error {
	sum := crc32.Update(0, castagnoli, header[:at])
	sum = crc32.Update(sum, castagnoli, zeros)
	sum = crc32.Update(sum, castagnoli, header[at+4:])
	if sum != binary.BigEndian.Uint32(header[at:]) {
		return ErrChecksum
	}
	return nil
}
