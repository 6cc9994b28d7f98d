package h2

import (
	"encoding/binary"
	"errors"

	"trivet/proxy/wire"
)

// head is a head while it is decoded, and what its bytes live in.
type head struct {
	text   []byte
	fields []wire.Field
	pseudo [nPseudo][]byte
	seen   uint8 // which of pseudo
	size   int   // as RFC 9113, 6.5.2 counts
	max    int
	count  int
	crumbs int    // Cookie fields
	bad    string // why it is malformed
}

// Pseudo fields of a request (RFC 9113, 8.3.1; RFC 8441, 4).
const (
	method = iota
	scheme
	authority
	path
	protocolName
	nPseudo
)

func (h *head) reset() {
	if cap(h.text) > 8<<10 {
		h.text = nil
	}
	clear(h.fields[:cap(h.fields)])
	*h = head{text: h.text[:0], fields: h.fields[:0]}
}

// over says that a head exceeds what is announced. What follows is dropped.
func (h *head) over() bool { return h.size > h.max }

// add takes in a field that was decoded.
func (h *head) add(name, value []byte) {
	h.size += len(name) + len(value) + entryOver
	h.count--
	switch {
	case h.over() || h.count < 0:
	case len(name) > 0 && name[0] == ':':
		h.addPseudo(name, value)
	case len(name) == 0:
		h.bad = "field without a name"
	default:
		if string(name) == "cookie" {
			h.crumbs++
		}
		h.fields = append(h.fields, wire.Field{Name: name, Value: value})
	}
}

func (h *head) addPseudo(name, value []byte) {
	i := -1
	switch string(name) {
	case ":method":
		i = method
	case ":scheme":
		i = scheme
	case ":authority":
		i = authority
	case ":path":
		i = path
	case ":protocol":
		i = protocolName
	}
	switch {
	case i < 0:
		h.bad = "unknown pseudo field"
	case len(h.fields) > 0:
		h.bad = "pseudo field after a field"
	case h.seen&(1<<i) != 0:
		h.bad = "pseudo field twice"
	default:
		h.seen |= 1 << i
		h.pseudo[i] = value
	}
}

func (h *head) has(i int) bool { return h.seen&(1<<i) != 0 }

// shape says why the pseudo fields are not those of a request; empty: they are.
func (h *head) shape() string {
	connect := string(h.pseudo[method]) == "CONNECT"
	switch {
	case h.bad != "":
		return h.bad
	case !h.has(method):
		return "no :method"
	case connect && !h.has(protocolName):
		if h.has(scheme) || h.has(path) || !h.has(authority) {
			return "CONNECT with :scheme or :path, or without :authority"
		}
	case !connect && h.has(protocolName):
		return ":protocol without CONNECT"
	case !h.has(scheme) || !h.has(path):
		return "no :scheme or no :path"
	case h.has(protocolName) && (!h.has(authority) || !wire.ValidName(h.pseudo[protocolName])):
		return "extended CONNECT without :authority or with an odd :protocol"
	case h.has(authority) && len(h.pseudo[authority]) == 0:
		return "empty :authority"
	}
	return ""
}

// join makes one Cookie field of the crumbs (RFC 9113, 8.2.3).
func (h *head) join() {
	if h.crumbs < 2 {
		return
	}
	from, first, kept := len(h.text), -1, h.fields[:0]
	for _, f := range h.fields {
		if string(f.Name) != "cookie" {
			kept = append(kept, f)
			continue
		}
		if first < 0 {
			first = len(kept)
			kept = append(kept, f)
		} else {
			h.text = append(h.text, "; "...)
		}
		h.text = append(h.text, f.Value...)
	}
	kept[first].Value = h.text[from:]
	h.fields = kept
}

// headBlock is a head that comes in several frames.
type headBlock struct {
	stream uint32
	flags  uint8
	frames int
	b      []byte
}

// maxContinuations is how many frames a head may come in (CVE-2024-27316). One
// of the size that we allow needs a handful.
const maxContinuations = 16

func (c *Conn) headers(f frame, p []byte) error {
	if f.stream == 0 || f.stream%2 == 0 {
		return protocol("HEADERS on a stream that is not a client's")
	}
	p, _, err := unpad(f, p)
	if err != nil {
		return err
	}
	if f.has(flagPriority) {
		if len(p) < 5 {
			return &fault{codeFrameSize, "HEADERS too short for its priority"}
		}
		if binary.BigEndian.Uint32(p)&maxStream == f.stream {
			return protocol("stream depends on itself")
		}
		p = p[5:]
	}
	if f.has(flagEndHeaders) {
		return c.whole(f, p)
	}
	c.block = headBlock{stream: f.stream, flags: f.flags, b: append(c.block.b[:0], p...)}
	return nil
}

func (c *Conn) continuation(f frame, p []byte) error {
	if c.block.stream == 0 || f.stream != c.block.stream {
		return protocol("CONTINUATION of nothing")
	}
	c.block.frames++
	if c.block.frames > maxContinuations || len(c.block.b)+len(p) > c.cfg.Limits.Head+maxFrame {
		return &fault{codeCalm, "head is too long"}
	}
	c.block.b = append(c.block.b, p...)
	if !f.has(flagEndHeaders) {
		return nil
	}
	b := c.block
	c.block = headBlock{}
	return c.whole(frame{frameHeaders, b.flags, b.stream}, b.b)
}

// whole decodes a head and makes a request of it, or a trailer.
func (c *Conn) whole(f frame, block []byte) error {
	s := streams.Get().(*Stream)
	s.conn, s.id = c, f.stream
	s.head.max, s.head.count = c.cfg.Limits.Head, c.cfg.Limits.Count+nPseudo
	err := c.decoder.decode(block, &s.head)
	if err == nil {
		err = c.arrived(s, f)
	} else {
		s.free()
	}
	return err
}

// arrived takes in a head that was decoded: s becomes a stream, or is given back.
func (c *Conn) arrived(s *Stream, f frame) error {
	if f.stream > c.last { // only this goroutine sets it
		return c.opened(s, f.has(flagEndStream))
	}
	defer s.free()
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.streams[f.stream]
	if old != nil {
		return c.trailers(old, s, f.has(flagEndStream))
	}
	switch c.closed.how(f.stream) {
	case byUs:
		return c.spend(stray)
	case unknown:
		return protocol("stream's number is not larger than those before")
	}
	return &fault{codeStreamClosed, "HEADERS on a closed stream"}
}

// trailers ends old's request with what s holds. mu is held.
func (c *Conn) trailers(old, s *Stream, end bool) error {
	switch {
	case old.ended:
		return c.cut(old, codeStreamClosed, "HEADERS after the end of its stream")
	case !end:
		return c.cut(old, codeProtocol, "second head does not end its stream")
	case old.left > 0:
		return c.cut(old, codeProtocol, "body is shorter than its content-length says")
	case s.head.bad != "" || s.head.seen != 0 || s.head.over() || s.head.count < 0:
		return c.cut(old, codeProtocol, "trailer is malformed")
	}
	for _, f := range s.head.fields {
		f.Kind = wire.KindOf(f.Name)
		switch {
		case !wire.ValidName(f.Name) || !wire.ValidValue(f.Value) || capital(f.Name) || connectionField(f.Kind):
			return c.cut(old, codeProtocol, "trailer is malformed")
		case f.Kind.Framing():
		default:
			f.Name, f.Value = append([]byte(nil), f.Name...), append([]byte(nil), f.Value...)
			old.trailer = append(old.trailer, f)
		}
	}
	c.remoteEnd(old)
	old.readable.Broadcast()
	return nil
}

func capital(name []byte) bool {
	for _, b := range name {
		if 'A' <= b && b <= 'Z' {
			return true
		}
	}
	return false
}

// connectionField says that a field has no place in HTTP/2 (RFC 9113, 8.2.2).
func connectionField(k wire.Kind) bool {
	switch k {
	case wire.Connection, wire.KeepAlive, wire.ProxyConnection, wire.TransferEncoding, wire.Upgrade:
		return true
	}
	return false
}

// opened is a new stream's head.
func (c *Conn) opened(s *Stream, ended bool) error {
	status, why := c.request(s, ended)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = s.id
	if c.leaving == final && s.id > c.lastGood {
		s.free()
		return c.spend(stray)
	}
	if len(c.streams)+c.zombies >= int(c.cfg.Streams) {
		defer s.free()
		if err := c.spend(refused); err != nil {
			return err
		}
		return c.refuse(s.id, codeRefused)
	}
	switch {
	case why != "":
		defer s.free()
		if err := c.spend(faults); err != nil {
			return err
		}
		return c.refuse(s.id, codeProtocol)
	case status != 0:
		defer s.free()
		return c.turnDown(s.id, status, ended)
	}
	c.open(s, ended)
	return nil
}

// request makes s.request of what was decoded. It is answered by status, or
// malformed, which why says, or good.
func (c *Conn) request(s *Stream, ended bool) (status int, why string) {
	h, r := &s.head, &s.request
	if h.over() || h.count < 0 {
		return 431, ""
	}
	if why = h.shape(); why != "" {
		return 0, why
	}
	h.join()
	*r = wire.Request{
		Method: h.pseudo[method], Scheme: h.pseudo[scheme], Host: h.pseudo[authority], Path: h.pseudo[path],
		Protocol: h.pseudo[protocolName], Fields: h.fields, Major: 2,
	}
	if err := r.Check(&c.cfg.Limits); err != nil {
		var e *wire.Error
		if errors.As(err, &e) && e.Status != 400 {
			return e.Status, ""
		}
		return 0, err.Error()
	}
	if !ended {
		return 0, ""
	}
	if r.Length > 0 {
		return 0, "content-length without a body"
	}
	r.Length = 0
	return 0, ""
}

// refuse resets a stream that was not opened. mu is held.
func (c *Conn) refuse(id, code uint32) error {
	c.number(frameReset, id, code)
	c.closed.add(id, byUs)
	return c.answered()
}

// turnDown answers a request without a body. mu is held.
func (c *Conn) turnDown(id uint32, status int, ended bool) error {
	if err := c.spend(faults); err != nil {
		return err
	}
	b := c.encoder.begin(status)
	if c.cfg.Refused != nil {
		b = c.encoder.fields(b, c.cfg.Refused(c.net, status))
	}
	b = c.encoder.length(b, 0)
	c.appendHead(id, flagEndStream, b)
	if ended {
		c.closed.add(id, whole)
		return c.answered()
	}
	return c.refuse(id, codeNo)
}
