package wire

import "bytes"

// What responses are refused for.
var (
	errStatusLine   = &Error{502, "the status line is not version, status and reason"}
	errAnswerLength = &Error{502, "a body in an answer that cannot have one"}
	errAnswerCoding = &Error{502, "Transfer-Encoding in an answer that cannot have it"}
)

// Parse reads the head of an HTTP/1.1 or 1.0 answer to a request of that method
// into r, whose Fields are used again. The error is an *Error of status 502.
//
// An interim answer (1xx) has Length 0 and is followed by another head, but for 101.
func (r *Response) Parse(head, method []byte, l *Limits) error {
	if err := r.parse(head, method, l); err != nil {
		return &Error{502, err.Why}
	}
	return nil
}

func (r *Response) parse(head, method []byte, l *Limits) *Error {
	*r = Response{Fields: r.Fields[:0]}
	if l == nil {
		l = unlimited
	}
	if !whole(head) {
		return errIncomplete
	}
	if l.Head > 0 && len(head) > l.Head {
		return errHeadSize
	}
	n := bytes.IndexByte(head, '\n')
	if head[n-min(n, 1)] != '\r' {
		return errBareLF
	}
	err := r.parseLine(head[:n-1])
	if err != nil {
		return err
	}
	if r.Fields, err = parseFields(r.Fields, head[n+1:], l); err != nil {
		return err
	}
	var f framing
	if err := f.read(r.Fields, r.Minor); err != nil {
		return err
	}
	return r.setLength(&f, method)
}

// parseLine reads the status line (RFC 9112, 4). The space before an empty
// reason may be missing, as many a server leaves it out.
func (r *Response) parseLine(line []byte) *Error {
	const least = len("HTTP/1.1 200")
	if len(line) < least || string(line[:7]) != "HTTP/1." || line[7]|1 != '1' || line[8] != ' ' {
		return errStatusLine
	}
	if line[9] < '1' || line[9] > '5' || !digit(line[10]) || !digit(line[11]) {
		return errStatusLine
	}
	r.Minor = line[7] - '0'
	r.Status = int(line[9]-'0')*100 + int(line[10]-'0')*10 + int(line[11]-'0')
	if len(line) == least {
		return nil
	}
	if line[least] != ' ' || control(line, least) != len(line) {
		return errStatusLine
	}
	r.Reason = line[least+1:]
	return nil
}

// setLength is RFC 9112, 6.3, for answers.
func (r *Response) setLength(f *framing, method []byte) *Error {
	r.Declared, r.Close = f.length, f.closes(r.Minor)
	switch {
	case r.Status < 200 || r.Status == 204:
		return r.checkBare(f)
	case r.Status < 300 && string(method) == "CONNECT": // what it says of a body must be ignored
	case r.Status == 304 || string(method) == "HEAD":
	case f.chunked:
		r.Length = -1
	case f.length >= 0:
		r.Length = f.length
	default:
		r.Length, r.Close = UntilClose, true
	}
	return nil
}

// checkBare refuses an answer that never has a body and yet announces one: its
// sender may be sending it.
func (r *Response) checkBare(f *framing) *Error {
	switch {
	case f.chunked:
		return errAnswerCoding
	case f.length > 0:
		return errAnswerLength
	}
	return nil
}
