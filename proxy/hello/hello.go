// Package hello reads a TLS ClientHello as it stands on the wire, without
// decrypting anything: the server name that the visitor wants, and the
// protocols that it offers. With it a connection can be passed on to a server
// that holds the key.
//
// A message may come in any number of TCP segments and, up to a bound, of TLS
// records (RFC 8446, 5.1). What is not a ClientHello is refused at its first
// wrong byte; what two readers could take differently, such as two names, is
// refused as well. Nothing is copied unless the message spans several records.
package hello

import (
	"errors"
	"io"
)

// Max is how many bytes a ClientHello may take with its records' heads. One
// with a post-quantum key share and a session ticket takes about 2 kB.
const Max = 32 << 10

const (
	maxRecords = 256
	maxRecord  = 16 << 10
	recordHead = 5
	helloHead  = 4
)

// ErrIncomplete says that what came is the beginning of a ClientHello.
var ErrIncomplete = errors.New("client hello is incomplete")

// What is refused.
var (
	ErrNotTLS   = errors.New("not a TLS handshake")
	ErrNotHello = errors.New("first TLS message is not a client hello")
	ErrLong     = errors.New("client hello is too long")
	ErrRecords  = errors.New("client hello spans too many records, or an empty one")
	ErrTrailing = errors.New("something follows the client hello in its record")
	ErrSyntax   = errors.New("client hello is malformed")
	ErrSession  = errors.New("session identifier of the client hello is too long")
	ErrName     = errors.New("server name of the client hello is not a host name")
)

// Hello is what a ClientHello says. Its slices point into the bytes that it was
// read from, or into a copy.
type Hello struct {
	// Name is the server name (RFC 6066, 3) as it came, in any case; empty: none.
	Name []byte
	// ALPN is the list of protocols (RFC 7301, 3.1), each after a byte of its length.
	ALPN []byte
}

// Read reads from r until a ClientHello is whole. b holds what came before, if
// anything, and room for more; it is grown where it must. read is all that was
// read, with whatever followed the hello, also where err is not nil. A reader
// that ends before is io.ErrUnexpectedEOF.
func Read(r io.Reader, b []byte) (h Hello, read []byte, err error) {
	for {
		if h, err = Parse(b); !errors.Is(err, ErrIncomplete) {
			return h, b, err
		}
		if len(b) == cap(b) {
			b = append(b, make([]byte, max(len(b), 2<<10))...)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if n > 0 {
			continue
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return Hello{}, b, err
		}
	}
}

// Parse reads the ClientHello that b begins with; ErrIncomplete if it needs
// more than b.
func Parse(b []byte) (Hello, error) {
	size, records, err := measure(b)
	if err != nil {
		return Hello{}, err
	}
	message := b[recordHead:]
	if records > 1 {
		message = join(b, size)
	}
	return parse(message[helloHead:size])
}

// measure walks through the records until they hold a whole message.
func measure(b []byte) (size, records int, err error) {
	var head [helloHead]byte
	got, taken := 0, 0
	for records = 1; records <= maxRecords; records++ {
		payload, whole, err := record(b[taken:])
		if err != nil {
			return 0, 0, err
		}
		if got < helloHead {
			copy(head[got:], payload)
		}
		got += len(payload)
		taken += recordHead + len(payload)
		switch size, err = sizeOf(head, got); {
		case err != nil:
			return 0, 0, err
		case size > 0 && got > size:
			return 0, 0, ErrTrailing
		case taken > Max:
			return 0, 0, ErrLong
		case !whole:
			return 0, 0, ErrIncomplete
		case got == size:
			return size, records, nil
		}
	}
	return 0, 0, ErrRecords
}

// record is what b has of the record that it begins with.
func record(b []byte) (payload []byte, whole bool, err error) {
	if len(b) > 0 && b[0] != 22 || len(b) > 1 && b[1] != 3 {
		return nil, false, ErrNotTLS
	}
	if len(b) < recordHead {
		return nil, false, ErrIncomplete
	}
	size := int(b[3])<<8 | int(b[4])
	if size == 0 {
		return nil, false, ErrRecords
	}
	if size > maxRecord {
		return nil, false, ErrNotTLS
	}
	b = b[recordHead:]
	if len(b) < size {
		return b, false, nil
	}
	return b[:size], true, nil
}

// sizeOf is the length of a message with its head, of which got bytes are
// known; 0: not known yet.
func sizeOf(head [helloHead]byte, got int) (int, error) {
	if got > 0 && head[0] != 1 {
		return 0, ErrNotHello
	}
	if got < helloHead {
		return 0, nil
	}
	size := helloHead + (int(head[1])<<16 | int(head[2])<<8 | int(head[3]))
	if size > Max {
		return 0, ErrLong
	}
	return size, nil
}

// join puts the message together that measure has measured.
func join(b []byte, size int) []byte {
	message := make([]byte, 0, size)
	for len(message) < size {
		payload, _, _ := record(b) // measure has read it
		message = append(message, payload...)
		b = b[recordHead+len(payload):]
	}
	return message
}
