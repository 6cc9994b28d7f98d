package wire

import (
	"bytes"
	"math"
)

// What is refused in the fields that say where a message ends and what becomes of its connection.
var (
	errLength         = &Error{400, "Content-Length is not a number"}
	errLengthTwice    = &Error{400, "more than one Content-Length"}
	errBoth           = &Error{400, "both Transfer-Encoding and Content-Length"}
	errCodingTwice    = &Error{400, "more than one Transfer-Encoding"}
	errCoding         = &Error{400, "Transfer-Encoding does not end with chunked"}
	errCodingUnknown  = &Error{501, "a transfer coding that is not known"}
	errCodingVersion  = &Error{400, "Transfer-Encoding in HTTP/1.0"}
	errConnection     = &Error{400, "a Connection option is not a token"}
	errConnectionMany = &Error{400, "too many Connection options"}
	errConnectionName = &Error{400, "Connection names a field that must be forwarded"}
	errUpgrade        = &Error{400, "Upgrade does not begin with a protocol"}
)

// maxOptions is how many elements the Connection fields of one message may have.
const maxOptions = 32

// framing is what the fields of one message say of its end and its connection.
type framing struct {
	length  int64 // of Content-Length; -1: absent
	chunked bool
	close   bool // named by Connection, and the following
	keep    bool
	upgrade bool
	options int
}

// read reads the framing and Connection fields, and marks what Connection names.
func (f *framing) read(fields []Field, minor uint8) *Error {
	f.length = -1
	for i := range fields {
		var err *Error
		switch v := fields[i].Value; fields[i].Kind {
		case ContentLength:
			err = f.readLength(v)
		case TransferEncoding:
			err = f.readCoding(v, minor)
		case Connection:
			err = f.readOptions(v, fields)
		}
		if err != nil {
			return err
		}
	}
	if f.chunked && f.length >= 0 {
		return errBoth
	}
	return nil
}

func (f *framing) readLength(v []byte) *Error {
	if f.length >= 0 {
		return errLengthTwice
	}
	n, ok := ParseLength(v)
	if !ok {
		return errLength
	}
	f.length = n
	return nil
}

// ParseLength reads the value of Content-Length: 1 to 19 digits, nothing else.
func ParseLength(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > 19 {
		return 0, false
	}
	for _, c := range v {
		d := int64(c) - '0'
		if d < 0 || d > 9 || n > (math.MaxInt64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

func (f *framing) readCoding(v []byte, minor uint8) *Error {
	switch {
	case minor == 0:
		return errCodingVersion
	case f.chunked:
		return errCodingTwice
	case !same(v, "chunked"):
		return badCoding(v)
	}
	f.chunked = true
	return nil
}

// badCoding says how a Transfer-Encoding other than "chunked" is refused: 501
// where chunked comes last, and once, after others; else the end of the message
// cannot be known (RFC 9112, 6.3).
func badCoding(v []byte) *Error {
	var coding []byte
	for n := 0; v != nil; n++ {
		if same(coding, "chunked") {
			return errCoding
		}
		coding, v = element(v)
		if !all(coding, isToken) {
			return errCoding
		}
	}
	if !same(coding, "chunked") {
		return errCoding
	}
	return errCodingUnknown
}

// readOptions reads one Connection field (RFC 9110, 7.6.1).
func (f *framing) readOptions(list []byte, fields []Field) *Error {
	for list != nil {
		var option []byte
		option, list = element(list)
		if f.options++; f.options > maxOptions {
			return errConnectionMany
		}
		if len(option) == 0 {
			continue
		}
		if err := f.readOption(option, fields); err != nil {
			return err
		}
	}
	return nil
}

func (f *framing) readOption(option []byte, fields []Field) *Error {
	if !all(option, isToken) {
		return errConnection
	}
	switch {
	case same(option, "close"):
		f.close = true
		return nil
	case same(option, "keep-alive"):
		f.keep = true
		return nil
	}
	switch KindOf(option) {
	case Upgrade:
		f.upgrade = true
	case TransferEncoding, ContentLength, Host, Expect, ContentEncoding, ContentRange, CacheControl:
		return errConnectionName
	default:
		markHop(option, fields)
	}
	return nil
}

// markHop gives the fields of that name the Kind Hop, unless they end here anyway.
func markHop(name []byte, fields []Field) {
	for i := range fields {
		if f := &fields[i]; len(f.Name) == len(name) && !f.Kind.HopByHop() && equal(f.Name, name) {
			f.Kind = Hop
		}
	}
}

// closes says whether the connection ends with the message (RFC 9112, 9.3).
func (f *framing) closes(minor uint8) bool {
	return f.close || minor == 0 && !f.keep
}

// protocol is the first protocol of the Upgrade field (RFC 9110, 7.8). HTTP and
// TLS are passed over: they would take the connection out of the engine's hands,
// and RFC 9113, 3.1, has given h2c up.
func protocol(fields []Field) ([]byte, *Error) {
	first, _ := element(Find(fields, Upgrade))
	n := run(first, isToken)
	if n > 0 && n < len(first) && first[n] == '/' {
		n++
		n += run(first[n:], isToken)
	}
	if n < len(first) || n > 0 && first[n-1] == '/' {
		return nil, errUpgrade
	}
	for _, own := range []string{"h2c", "h2", "http", "tls"} {
		if name, _, _ := bytes.Cut(first, slash); same(name, own) {
			return nil, nil
		}
	}
	return first, nil
}
