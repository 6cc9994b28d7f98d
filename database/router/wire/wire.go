// Package wire is the client protocol of MariaDB, as far as something that
// stands between a client and a server has to know it: the handshake, where an
// answer ends, what an answer says of the session, and what a statement leaves
// behind in it. It does no I/O.
//
// The protocol is MariaDB's "client/server protocol", version 4.1 and later.
// Nothing here trusts a length that it is given.
package wire

import "encoding/binary"

// HeaderSize is what each packet starts with: three bytes of length and a sequence number.
const HeaderSize = 4

// MaxPayload is the longest payload of one packet; one of this length is
// continued by the next packet.
const MaxPayload = 1<<24 - 1

// Command is the first byte of a request.
type Command byte

// The commands that mean something to us; all others are refused.
const (
	Quit             Command = 0x01
	InitDB           Command = 0x02
	Query            Command = 0x03
	FieldList        Command = 0x04
	Refresh          Command = 0x07
	Statistics       Command = 0x09
	ProcessInfo      Command = 0x0a
	ProcessKill      Command = 0x0c
	Debug            Command = 0x0d
	Ping             Command = 0x0e
	ChangeUser       Command = 0x11
	StmtPrepare      Command = 0x16
	StmtExecute      Command = 0x17
	StmtSendLongData Command = 0x18
	StmtClose        Command = 0x19
	StmtReset        Command = 0x1a
	SetOption        Command = 0x1b
	StmtFetch        Command = 0x1c
	ResetConnection  Command = 0x1f
)

// Capabilities, as both ends exchange them in the handshake.
const (
	ClientMySQL          uint32 = 1 << 0 // "long password"; without it a server announces MariaDB's own extensions
	ClientFoundRows      uint32 = 1 << 1
	ClientLongFlag       uint32 = 1 << 2
	ClientConnectWithDB  uint32 = 1 << 3
	ClientNoSchema       uint32 = 1 << 4
	ClientIgnoreSpace    uint32 = 1 << 8
	ClientProtocol41     uint32 = 1 << 9
	ClientInteractive    uint32 = 1 << 10
	ClientSSL            uint32 = 1 << 11
	ClientTransactions   uint32 = 1 << 13
	ClientSecure         uint32 = 1 << 15
	ClientMultiStatement uint32 = 1 << 16
	ClientMultiResults   uint32 = 1 << 17
	ClientPSMultiResults uint32 = 1 << 18
	ClientPluginAuth     uint32 = 1 << 19
	ClientConnectAttrs   uint32 = 1 << 20
	ClientLenencAuth     uint32 = 1 << 21
	ClientSessionTrack   uint32 = 1 << 23
	ClientDeprecateEOF   uint32 = 1 << 24
)

// Flags of a server's status.
const (
	StatusInTransaction  uint16 = 0x0001
	StatusAutocommit     uint16 = 0x0002
	StatusMoreResults    uint16 = 0x0008
	StatusCursorExists   uint16 = 0x0040
	StatusLastRowSent    uint16 = 0x0080
	StatusPlainBackslash uint16 = 0x0200 // sql_mode NO_BACKSLASH_ESCAPES
	StatusSessionChanged uint16 = 0x4000
)

// First bytes of an answer's packets, and how long some are.
const (
	headOK          byte = 0x00
	headLocalInfile byte = 0xfb
	headEOF         byte = 0xfe
	headErr         byte = 0xff

	shortEOF              = 5
	longestEOF            = 8
	prepareAnswer         = 9 // bytes of a COM_STMT_PREPARE's answer that are read here
	longestSessionMessage = 1 << 20
)

// Header reads a packet's length and sequence number; b has at least HeaderSize bytes.
func Header(b []byte) (length int, sequence byte) {
	return int(b[0]) | int(b[1])<<8 | int(b[2])<<16, b[3]
}

// Frame returns payload, shorter than MaxPayload, as a packet.
func Frame(sequence byte, payload []byte) []byte {
	b := make([]byte, HeaderSize, HeaderSize+len(payload))
	PutHeader(b, len(payload), sequence)
	return append(b, payload...)
}

// PutHeader writes a packet's head into b.
func PutHeader(b []byte, length int, sequence byte) {
	b[0], b[1], b[2], b[3] = byte(length), byte(length>>8), byte(length>>16), sequence
}

// reader takes a payload apart; after the first lack of bytes it is bad and
// gives zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) number(size int) uint64 {
	var v uint64
	for i, c := range r.take(uint64(size)) {
		v |= uint64(c) << (8 * i)
	}
	return v
}

// lenenc reads a length-encoded number.
func (r *reader) lenenc() uint64 {
	switch first := r.number(1); first {
	case 0xfc:
		return r.number(2)
	case 0xfd:
		return r.number(3)
	case 0xfe:
		return r.number(8)
	case 0xfb, 0xff:
		r.bad = true
		return 0
	default:
		return first
	}
}

// text reads a length-encoded string.
func (r *reader) text() []byte { return r.take(r.lenenc()) }

// terminated reads up to a zero byte, or to the end.
func (r *reader) terminated() []byte {
	for i, c := range r.b {
		if c == 0 {
			out := r.take(uint64(i))
			r.take(1)
			return out
		}
	}
	return r.take(uint64(len(r.b)))
}

func appendLenenc(b []byte, v uint64) []byte {
	switch {
	case v < 0xfb:
		return append(b, byte(v))
	case v < 1<<16:
		return binary.LittleEndian.AppendUint16(append(b, 0xfc), uint16(v))
	case v < 1<<24:
		return append(b, 0xfd, byte(v), byte(v>>8), byte(v>>16))
	}
	return binary.LittleEndian.AppendUint64(append(b, 0xfe), v)
}

func appendText(b, s []byte) []byte { return append(appendLenenc(b, uint64(len(s))), s...) }
