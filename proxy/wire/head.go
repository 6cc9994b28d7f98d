package wire

import "bytes"

// What heads are refused for.
var (
	errBareLF      = &Error{400, "a line ends without CR"}
	errBareCR      = &Error{400, "a CR without LF"}
	errEmptyLines  = &Error{400, "too many empty lines before the request"}
	errIncomplete  = &Error{400, "the head has no end"}
	errName        = &Error{400, "a field name is not a token"}
	errFold        = &Error{400, "a folded or indented field line"}
	errColon       = &Error{400, "a space before a colon"}
	errControl     = &Error{400, "a control byte in a field value"}
	errFieldSize   = &Error{431, "a field line is too long"}
	errHeadSize    = &Error{431, "the head is too long"}
	errFieldCount  = &Error{431, "too many field lines"}
	errTargetSize  = &Error{414, "the request target is too long"}
	errRequestLine = &Error{400, "the request line is not method, target and version"}
)

// leading is how many empty lines before a request are passed over (RFC 9112, 2.2).
const leading = 4

// HeadEnd is the index after the empty line that ends the head at the beginning
// of b, or 0 if it is not there yet. from is the len(b) of the call before it,
// 0 in the first. So that no one is kept waiting for what can only be refused, it
// is an *Error at once if a line ends without CR, if more than four empty lines
// come before the head, or if its first byte cannot begin one.
func HeadEnd(b []byte, from int) (end int, err error) {
	start := skipLeading(b)
	if start > 2*leading {
		return 0, errEmptyLines
	}
	if !begins(b[start:]) {
		return 0, errMethod
	}
	for i := max(from, start); i < len(b); i++ {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0, nil
		}
		i += n
		if i == 0 || b[i-1] != '\r' {
			return 0, errBareLF
		}
		if i-3 >= start && b[i-2] == '\n' {
			return i + 1, nil
		}
	}
	return 0, nil
}

// begins says whether b may begin a start line, or an empty one before it.
func begins(b []byte) bool {
	return len(b) == 0 || classes[b[0]]&isToken != 0 || len(b) == 1 && b[0] == '\r'
}

// skipLeading is the index after the empty lines at the beginning of b.
func skipLeading(b []byte) int {
	i := 0
	for i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n' {
		i += 2
	}
	return i
}

// whole says whether head ends as a head must.
func whole(head []byte) bool {
	n := len(head)
	return n >= 4 && head[n-1] == '\n' && head[n-2] == '\r' && head[n-3] == '\n' && head[n-4] == '\r'
}

// parseFields appends to fields the field lines in b, which begins after the
// start line's CRLF and ends with the empty line.
func parseFields(fields []Field, b []byte, l *Limits) ([]Field, *Error) {
	for i := 0; i+1 < len(b); {
		if b[i] == '\r' {
			return fields, emptyLine(b[i:])
		}
		colon := i
		for classes[b[colon]]&isToken != 0 {
			colon++
		}
		if b[colon] != ':' || colon == i {
			return fields, badName(b[i:], colon-i)
		}
		end := control(b, colon+1)
		if end+1 >= len(b) || b[end] != '\r' || b[end+1] != '\n' {
			return fields, badValue(b, end)
		}
		if l.Field > 0 && end-i > l.Field {
			return fields, errFieldSize
		}
		if l.Count > 0 && len(fields) >= l.Count {
			return fields, errFieldCount
		}
		name := b[i:colon:colon]
		fields = append(fields, Field{Name: name, Value: trim(b[colon+1 : end : end]), Kind: KindOf(name)})
		i = end + 2
	}
	return fields, errIncomplete
}

// emptyLine says what is wrong with b, which begins with CR where a field line
// or the end of the head was awaited.
func emptyLine(b []byte) *Error {
	switch {
	case b[1] != '\n':
		return errBareCR
	case len(b) > 2:
		return errIncomplete
	}
	return nil
}

// badName says why the line at the beginning of b, of which n bytes are a
// token, does not begin with a name and a colon.
func badName(b []byte, n int) *Error {
	switch c := b[n]; {
	case n == 0 && (c == ' ' || c == '\t'):
		return errFold
	case c == ' ' || c == '\t':
		return errColon
	case c == '\n':
		return errBareLF
	}
	return errName
}

// badValue says why the byte at end may not be in a value.
func badValue(b []byte, end int) *Error {
	switch {
	case end >= len(b):
		return errIncomplete
	case b[end] == '\n':
		return errBareLF
	case b[end] == '\r':
		return errBareCR
	}
	return errControl
}
