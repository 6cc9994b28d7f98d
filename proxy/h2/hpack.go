package h2

import (
	"golang.org/x/net/http2/hpack"
)

// decoderTable is how large the client's compression table may be: the default
// of RFC 9113, 6.5.2.
const decoderTable = 4096

// entryOver is what an entry of a table counts beside its bytes (RFC 7541, 4.1).
const entryOver = 32

// entry is a field of a compression table. Its bytes never change.
type entry struct{ name, value []byte }

func (e entry) size() int { return len(e.name) + len(e.value) + entryOver }

// decoder reads heads as HPACK has them (RFC 7541). Unlike that of x/net, it
// allocates only for what enters the table.
type decoder struct {
	table []entry // the newest last
	size  int
	less  int // how much smaller than decoderTable the client made it
}

var errCompression = &fault{codeCompression, "head is not compressed as it must be"}

// decode adds the fields of a whole block to h.
func (d *decoder) decode(p []byte, h *head) error {
	for fields := false; len(p) > 0; {
		var ok bool
		switch b := p[0]; {
		case b&0x80 != 0:
			p, ok = d.indexed(p, h)
		case b&0xc0 == 0x40:
			p, ok = d.literal(p, 6, true, h)
		case b&0xe0 == 0x20:
			if p, ok = d.resize(p); fields {
				ok = false
			}
			if !ok {
				return errCompression
			}
			continue
		default:
			p, ok = d.literal(p, 4, false, h)
		}
		if !ok {
			return errCompression
		}
		fields = true
	}
	return nil
}

func (d *decoder) indexed(p []byte, h *head) (rest []byte, ok bool) {
	i, p, ok := integer(p, 7)
	if !ok {
		return p, false
	}
	e, ok := d.at(i)
	if ok {
		h.add(e.name, e.value)
	}
	return p, ok
}

func (d *decoder) literal(p []byte, prefix uint8, keep bool, h *head) (rest []byte, ok bool) {
	i, p, ok := integer(p, prefix)
	if !ok {
		return p, false
	}
	var e entry
	mark := len(h.text)
	if i == 0 {
		e.name, p, ok = h.read(p)
	} else {
		e, ok = d.at(i)
	}
	if !ok {
		return p, false
	}
	if e.value, p, ok = h.read(p); !ok {
		return p, false
	}
	if keep {
		e = d.add(e, i != 0)
		h.text = h.text[:mark]
	}
	h.add(e.name, e.value)
	return p, true
}

// at is the entry of an index.
func (d *decoder) at(i int) (entry, bool) {
	switch {
	case i == 0:
		return entry{}, false
	case i <= len(static):
		return static[i-1], true
	case i-len(static) <= len(d.table):
		return d.table[len(d.table)-(i-len(static))], true
	}
	return entry{}, false
}

// add enters a copy of e, and returns it. The bytes of an indexed name are kept as they are.
func (d *decoder) add(e entry, indexed bool) entry {
	if indexed {
		e.value = append([]byte(nil), e.value...)
	} else {
		b := make([]byte, 0, len(e.name)+len(e.value))
		b = append(append(b, e.name...), e.value...)
		e = entry{b[:len(e.name):len(e.name)], b[len(e.name):]}
	}
	d.shrink(decoderTable - d.less - e.size())
	if e.size() <= decoderTable-d.less {
		d.table = append(d.table, e)
		d.size += e.size()
	}
	return e
}

// shrink evicts the oldest until at most size is left.
func (d *decoder) shrink(size int) {
	n := 0
	for n < len(d.table) && d.size > size {
		d.size -= d.table[n].size()
		n++
	}
	if n == 0 {
		return
	}
	m := copy(d.table, d.table[n:])
	clear(d.table[m:])
	d.table = d.table[:m]
}

func (d *decoder) resize(p []byte) (rest []byte, ok bool) {
	n, p, ok := integer(p, 5)
	if !ok || n > decoderTable {
		return p, false
	}
	d.less = decoderTable - n
	d.shrink(n)
	return p, true
}

// integer reads an integer with a prefix of so many bits (RFC 7541, 5.1).
func integer(p []byte, prefix uint8) (n int, rest []byte, ok bool) {
	if len(p) == 0 {
		return 0, p, false
	}
	most := 1<<prefix - 1
	n = int(p[0]) & most
	p = p[1:]
	if n < most {
		return n, p, true
	}
	for shift := 0; len(p) > 0 && shift <= 21; shift += 7 {
		b := p[0]
		p = p[1:]
		n += int(b&0x7f) << shift
		if b&0x80 == 0 {
			return n, p, true
		}
	}
	return 0, p, false
}

// read reads a string into h's text.
func (h *head) read(p []byte) (s, rest []byte, ok bool) {
	if len(p) == 0 {
		return nil, p, false
	}
	huffman := p[0]&0x80 != 0
	n, p, ok := integer(p, 7)
	if !ok || n > len(p) {
		return nil, p, false
	}
	from := len(h.text)
	if !huffman {
		h.text = append(h.text, p[:n]...)
	} else if _, err := hpack.HuffmanDecode((*text)(&h.text), p[:n]); err != nil {
		return nil, p, false
	}
	return h.text[from:len(h.text):len(h.text)], p[n:], true
}

// text is an io.Writer that appends.
type text []byte

func (t *text) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	return len(p), nil
}
