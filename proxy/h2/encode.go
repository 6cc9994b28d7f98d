package h2

import (
	"bytes"
	"hash/maphash"
	"slices"
	"strconv"

	"trivet/proxy/wire"
)

// encoderTable is how much of the client's compression table we use.
const encoderTable = 2048

// encoder writes heads as HPACK (RFC 7541). A field enters the table when it is
// sent for the second time: what changes with each answer never does. Nothing is
// Huffman-coded, since that costs more here than it saves on the way.
type encoder struct {
	block []byte
	table []sent // the newest last
	size  int
	less  int        // how much smaller than encoderTable the client allows
	told  bool       // the client knows our size
	wiped bool       // the client still has entries that we forgot
	seen  [32]uint64 // what was sent last outside the table
	next  uint8      // of seen
}

// sent is a field in the client's table.
type sent struct {
	hash        uint64
	name, value []byte
}

func (s *sent) size() int { return len(s.name) + len(s.value) + entryOver }

var seed = maphash.MakeSeed()

// limit takes the client's SETTINGS_HEADER_TABLE_SIZE, up to encoderTable.
func (e *encoder) limit(n int) {
	e.less, e.told = encoderTable-n, false
	e.evict(0)
}

// clear forgets the table; the next block empties the client's.
func (e *encoder) clear() {
	*e = encoder{less: e.less, wiped: e.wiped || len(e.table) > 0}
}

// begin begins a block with its status.
func (e *encoder) begin(status int) []byte {
	b := e.block[:0]
	if e.wiped {
		b = append(b, 0x20)
		e.wiped, e.told = false, false
	}
	if !e.told {
		b = appendInteger(b, 0x20, 5, encoderTable-e.less)
		e.told = true
	}
	switch status {
	case 200:
		return append(b, 0x80|8)
	case 204:
		return append(b, 0x80|9)
	case 206:
		return append(b, 0x80|10)
	case 304:
		return append(b, 0x80|11)
	case 404:
		return append(b, 0x80|13)
	}
	b = append(b, 8, 3)
	return strconv.AppendInt(b, int64(status), 10)
}

// fields appends all that HTTP/2 may carry.
func (e *encoder) fields(b []byte, fields []wire.Field) []byte { return e.answer(b, fields, false) }

// answer is fields, with Content-Length if keep: where it is that of a body which is not sent.
func (e *encoder) answer(b []byte, fields []wire.Field, keep bool) []byte {
	for i := range fields {
		f := &fields[i]
		if !f.Kind.Framing() || keep && f.Kind == wire.ContentLength {
			b = e.field(b, f)
		}
	}
	e.block = b
	return b
}

// length appends Content-Length.
func (e *encoder) length(b []byte, n int64) []byte {
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], n, 10)
	b = append(b, 0x0f, 28-0x0f, byte(len(d)))
	e.block = append(b, d...)
	return e.block
}

func (e *encoder) field(b []byte, f *wire.Field) []byte {
	if f.Kind == wire.SetCookie {
		return e.literal(b, 0x10, 4, f)
	}
	h := maphash.Bytes(seed, f.Name)<<1 ^ maphash.Bytes(seed, f.Value)
	for i := range e.table {
		if s := &e.table[i]; s.hash == h && bytes.Equal(s.value, f.Value) && bytes.Equal(s.name, f.Name) {
			return appendInteger(b, 0x80, 7, len(static)+len(e.table)-i)
		}
	}
	n := len(f.Name) + len(f.Value) + entryOver
	if n > (encoderTable-e.less)/4 || !slices.Contains(e.seen[:], h) {
		e.seen[e.next] = h
		e.next = (e.next + 1) % uint8(len(e.seen))
		return e.literal(b, 0, 4, f)
	}
	b = e.literal(b, 0x40, 6, f)
	e.evict(n)
	e.table = append(e.table, sent{h, bytes.Clone(f.Name), bytes.Clone(f.Value)})
	e.size += n
	return b
}

// evict makes room for n more.
func (e *encoder) evict(n int) {
	i := 0
	for i < len(e.table) && e.size+n > encoderTable-e.less {
		e.size -= e.table[i].size()
		i++
	}
	if i > 0 {
		m := copy(e.table, e.table[i:])
		clear(e.table[m:])
		e.table = e.table[:m]
	}
}

// literal appends f with the name in lower case, by its index where it has one.
func (e *encoder) literal(b []byte, kind byte, prefix uint8, f *wire.Field) []byte {
	at := len(b)
	b = append(b, kind)
	b = appendInteger(b, 0, 7, len(f.Name))
	from := len(b)
	for _, c := range f.Name {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		b = append(b, c)
	}
	if i := staticNames[string(b[from:])]; i > 0 {
		b = appendInteger(b[:at], kind, prefix, i)
	}
	b = appendInteger(b, 0, 7, len(f.Value))
	return append(b, f.Value...)
}

// appendInteger appends n with a prefix of so many bits, below those of kind (RFC 7541, 5.1).
func appendInteger(b []byte, kind byte, prefix uint8, n int) []byte {
	most := 1<<prefix - 1
	if n < most {
		return append(b, kind|byte(n))
	}
	b = append(b, kind|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
