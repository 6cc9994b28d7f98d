package wire

import "math"

// What chunked bodies are refused for.
var (
	errChunkSize    = &Error{400, "a chunk's size is not a number"}
	errChunkBig     = &Error{400, "a chunk's size is too big"}
	errChunkExt     = &Error{400, "a chunk's extension is malformed"}
	errChunkExtSize = &Error{400, "chunk extensions are too long"}
	errChunkEnd     = &Error{400, "a chunk does not end with CRLF"}
	errTrailerSize  = &Error{431, "the trailer is too long"}
	errTrailer      = &Error{400, "a field in the trailer that may only be in the head"}
)

const (
	maxSizeDigits = 16
	maxExtensions = 4 << 10 // bytes in one body
	maxTrailer    = 8 << 10 // bytes with their CRLF
)

var trailerLimits = &Limits{Count: 64}

// Chunks takes a chunked body apart (RFC 9112, 7.1). The zero value is at the
// beginning of a body.
//
// Extensions are checked and dropped. Of the trailer, fields that would change
// what the message is (framing, Host, …) are an error; others that have no place
// there are dropped.
type Chunks struct {
	state   chunkState
	digits  int // of the size being read
	ext     int // bytes of extensions so far
	left    int64
	buf     []byte // the trailer as it came
	trailer []Field
}

type chunkState uint8

const (
	chunkSize     chunkState = iota // before or in a size
	chunkSpace                      // white space after a size or an extension: ";" must follow
	chunkName0                      // after ";", the name has not begun
	chunkName                       // in an extension's name
	chunkNameEnd                    // white space after it
	chunkValue0                     // after "="
	chunkToken                      // in a value
	chunkString                     // in a quoted value
	chunkEscape                     // after a backslash in it
	chunkValueEnd                   // after a quoted value
	chunkLF                         // after the CR of a size's line
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer // in the lines after the last chunk
	chunkDone
)

// Reset makes c ready for another body.
func (c *Chunks) Reset() {
	*c = Chunks{buf: c.buf[:0], trailer: c.trailer[:0]}
}

// Done says that the body and its trailer have ended.
func (c *Chunks) Done() bool { return c.state == chunkDone }

// Trailer is the trailer's fields, once Done. They are valid until Reset.
func (c *Chunks) Trailer() []Field { return c.trailer }

// Left is how much data of the chunk being read has not come yet.
func (c *Chunks) Left() int64 {
	if c.state != chunkData {
		return 0
	}
	return c.left
}

// Skip passes over n bytes of the chunk being read, at most Left: they went
// another way, spliced.
func (c *Chunks) Skip(n int64) {
	if c.left -= n; c.left == 0 {
		c.state = chunkDataCR
	}
}

// Next reads the n bytes of b up to the end of the first data in it, or all of
// b where it has none, or up to the end of the body. data is a part of b. Call
// it with what remains of b until that is empty or Done. The error is an *Error;
// c is of no use after it.
func (c *Chunks) Next(b []byte) (data []byte, n int, err error) {
	for n < len(b) && c.state != chunkDone {
		if c.state == chunkData {
			data = b[n:min(int64(len(b)), int64(n)+min(c.left, int64(len(b))))]
			c.Skip(int64(len(data)))
			return data, n + len(data), nil
		}
		if e := c.step(b[n]); e != nil {
			return nil, n, e
		}
		n++
	}
	return nil, n, nil
}

// step takes one byte that is not data.
func (c *Chunks) step(b byte) *Error {
	switch c.state {
	case chunkSize:
		return c.size(b)
	case chunkLF:
		return c.sizeEnd(b)
	case chunkDataCR:
		c.state = chunkDataLF
		return must(b == '\r')
	case chunkDataLF:
		c.state = chunkSize
		return must(b == '\n')
	case chunkTrailer:
		return c.trail(b)
	}
	return c.extension(b)
}

func must(ok bool) *Error {
	if !ok {
		return errChunkEnd
	}
	return nil
}

func (c *Chunks) size(b byte) *Error {
	if classes[b]&isHex != 0 {
		if c.digits++; c.digits > maxSizeDigits || c.left > math.MaxInt64>>4 {
			return errChunkBig
		}
		c.left = c.left<<4 | int64(unhex(b))
		return nil
	}
	if c.digits == 0 {
		return errChunkSize
	}
	switch b {
	case '\r':
		c.state = chunkLF
	case ';':
		c.state = chunkName0
	case ' ', '\t':
		c.state = chunkSpace
	default:
		return errChunkSize
	}
	return nil
}

// unhex is the value of a hexadecimal digit.
func unhex(b byte) byte {
	if b <= '9' {
		return b - '0'
	}
	return b&0xf + 9
}

// sizeEnd takes what follows the CR of a size's line.
func (c *Chunks) sizeEnd(b byte) *Error {
	c.digits, c.state = 0, chunkData
	if c.left == 0 {
		c.state = chunkTrailer
	}
	return must(b == '\n')
}

// extension takes one byte of
// *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ) CRLF.
func (c *Chunks) extension(b byte) *Error {
	if c.ext++; c.ext > maxExtensions {
		return errChunkExtSize
	}
	next, ok := c.state.after(b)
	if !ok {
		return errChunkExt
	}
	c.state = next
	return nil
}

// after is the state after b in an extension.
func (s chunkState) after(b byte) (next chunkState, ok bool) {
	space := b == ' ' || b == '\t'
	token := classes[b]&isToken != 0
	switch s {
	case chunkSpace:
		return ended(b, space, chunkSpace, false)
	case chunkName0:
		return begun(space, token, chunkName0, chunkName)
	case chunkName:
		if b == '=' || token {
			return pick(token, chunkName, chunkValue0), true
		}
		return ended(b, space, chunkNameEnd, true)
	case chunkNameEnd:
		if b == '=' {
			return chunkValue0, true
		}
		return ended(b, space, chunkNameEnd, false)
	case chunkValue0:
		if b == '"' {
			return chunkString, true
		}
		return begun(space, token, chunkValue0, chunkToken)
	case chunkToken:
		if token {
			return chunkToken, true
		}
		return ended(b, space, chunkSpace, true)
	case chunkValueEnd:
		return ended(b, space, chunkSpace, true)
	}
	return s.quote(b)
}

// ended is the state where a name or a value has ended.
func ended(b byte, space bool, after chunkState, cr bool) (chunkState, bool) {
	switch {
	case space:
		return after, true
	case b == ';':
		return chunkName0, true
	}
	return chunkLF, cr && b == '\r'
}

// begun is the state where a name or a value may begin.
func begun(space, token bool, before, in chunkState) (chunkState, bool) {
	return pick(space, before, in), space || token
}

func pick(first bool, a, b chunkState) chunkState {
	if first {
		return a
	}
	return b
}

// quote is the state after b in a quoted string.
func (s chunkState) quote(b byte) (chunkState, bool) {
	switch {
	case s == chunkEscape:
		return chunkString, classes[b]&isQuoted != 0 || b == '"' || b == '\\'
	case b == '"':
		return chunkValueEnd, true
	case b == '\\':
		return chunkEscape, true
	}
	return chunkString, classes[b]&isQuoted != 0
}

// trail takes one byte of the lines after the last chunk.
func (c *Chunks) trail(b byte) *Error {
	c.buf = append(c.buf, b)
	n := len(c.buf)
	switch {
	case n > maxTrailer:
		return errTrailerSize
	case b != '\n':
		return nil
	case n < 2 || c.buf[n-2] != '\r':
		return errBareLF
	case n > 2 && c.buf[n-3] != '\n':
		return nil
	}
	c.state = chunkDone
	return c.parseTrailer()
}

// parseTrailer reads the trailer once it is whole.
func (c *Chunks) parseTrailer() *Error {
	var err *Error
	if c.trailer, err = parseFields(c.trailer[:0], c.buf, trailerLimits); err != nil {
		return err
	}
	kept := c.trailer[:0]
	for _, f := range c.trailer {
		switch f.Kind {
		case TransferEncoding, ContentLength, Host, Connection, Trailer, Expect, TE, Upgrade:
			return errTrailer
		case Other, Date, ETag, LastModified:
			kept = append(kept, f)
		}
	}
	c.trailer = kept
	return nil
}
