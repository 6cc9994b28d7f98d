package hello

// Extensions that are read.
const (
	serverName = 0
	alpn       = 16
)

// parse reads the body of a ClientHello (RFC 8446, 4.1.2).
func parse(b []byte) (Hello, error) {
	c := cursor{rest: b}
	c.take(2 + 32) // version, random
	session := c.list8()
	if suites := c.list16(); len(suites)%2 != 0 {
		c.bad = true
	}
	c.list8() // compression methods
	if c.bad {
		return Hello{}, ErrSyntax
	}
	if len(session) > 32 {
		return Hello{}, ErrSession
	}
	if len(c.rest) == 0 {
		return Hello{}, nil
	}
	extensions := c.list16()
	if c.bad || len(c.rest) > 0 {
		return Hello{}, ErrSyntax
	}
	return parseExtensions(extensions)
}

func parseExtensions(b []byte) (h Hello, err error) {
	var seenName, seenALPN bool
	for c := (cursor{rest: b}); len(c.rest) > 0; {
		kind, data := c.uint16(), c.list16()
		if c.bad {
			return Hello{}, ErrSyntax
		}
		switch {
		case kind == serverName && !seenName:
			seenName = true
			h.Name, err = parseName(data)
		case kind == alpn && !seenALPN:
			seenALPN = true
			h.ALPN, err = parseALPN(data)
		case kind == serverName || kind == alpn:
			err = ErrSyntax // twice
		}
		if err != nil {
			return Hello{}, err
		}
	}
	return h, nil
}

// parseName reads a list of names, of which one may be a host name.
func parseName(b []byte) (name []byte, err error) {
	outer := cursor{rest: b}
	names := cursor{rest: outer.list16()}
	if outer.bad || len(outer.rest) > 0 || len(names.rest) == 0 {
		return nil, ErrSyntax
	}
	for len(names.rest) > 0 {
		kind, value := names.uint8(), names.list16()
		if names.bad || len(value) == 0 || kind == 0 && name != nil {
			return nil, ErrSyntax
		}
		if kind != 0 {
			continue
		}
		if !validName(value) {
			return nil, ErrName
		}
		name = value
	}
	return name, nil
}

// validName accepts what may stand in DNS, without the dot at the end.
func validName(b []byte) bool {
	if len(b) > 253 || b[0] == '.' || b[len(b)-1] == '.' {
		return false
	}
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}

func parseALPN(b []byte) ([]byte, error) {
	outer := cursor{rest: b}
	list := outer.list16()
	if outer.bad || len(outer.rest) > 0 || len(list) == 0 {
		return nil, ErrSyntax
	}
	for c := (cursor{rest: list}); len(c.rest) > 0; {
		if p := c.list8(); len(p) == 0 {
			return nil, ErrSyntax
		}
	}
	return list, nil
}

// cursor reads from the front of rest; where that is too short it turns bad and
// reads nothing more.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || len(c.rest) < n {
		c.bad, c.rest = true, nil
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) uint8() int {
	if b := c.take(1); b != nil {
		return int(b[0])
	}
	return 0
}

func (c *cursor) uint16() int {
	if b := c.take(2); b != nil {
		return int(b[0])<<8 | int(b[1])
	}
	return 0
}

// list8 is what stands after a byte of its length.
func (c *cursor) list8() []byte { return c.take(c.uint8()) }

// list16 is what stands after two bytes of its length.
func (c *cursor) list16() []byte { return c.take(c.uint16()) }
