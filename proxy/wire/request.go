package wire

import "bytes"

// What requests are refused for.
var (
	errMethod        = &Error{400, "the method is not a token"}
	errMethodSize    = &Error{501, "a method that is not known"}
	errVersion       = &Error{400, "the request line does not end with a version"}
	errVersionOther  = &Error{505, "a version other than HTTP/1.0 and HTTP/1.1"}
	errHostMissing   = &Error{400, "no Host field"}
	errHostTwice     = &Error{400, "more than one Host field"}
	errHost          = &Error{400, "Host is not a host name or address with or without a port"}
	errHostDiffers   = &Error{400, "Host is not the target's"}
	errExpect        = &Error{417, "an expectation other than 100-continue"}
	errConnectLength = &Error{400, "a body in a request that cannot have one"}
)

// maxMethod is the length of the longest method (RFC 9112, 3: 501 beyond it).
const maxMethod = 32

// Parse reads the head of an HTTP/1.1 or 1.0 request into r, whose Fields are
// used again. head ends where HeadEnd says. The error is an *Error.
func (r *Request) Parse(head []byte, l *Limits) error {
	if err := r.parse(head, l); err != nil {
		return err
	}
	return nil
}

var unlimited = &Limits{}

func (r *Request) parse(head []byte, l *Limits) *Error {
	*r = Request{Fields: r.Fields[:0], Major: 1, path: r.path[:0]}
	if l == nil {
		l = unlimited
	}
	start := skipLeading(head)
	if start > 2*leading {
		return errEmptyLines
	}
	head = head[start:]
	if !whole(head) {
		return errIncomplete
	}
	rest, err := r.parseLine(head, l)
	if err != nil {
		return err
	}
	if l.Head > 0 && len(head) > l.Head {
		return errHeadSize
	}
	if r.Fields, err = parseFields(r.Fields, rest, l); err != nil {
		return err
	}
	return r.interpret()
}

// parseLine reads the request line (RFC 9112, 3) and returns what follows it.
// The head has a CRLF at its end, so that no search runs out of it.
func (r *Request) parseLine(head []byte, l *Limits) ([]byte, *Error) {
	n := bytes.IndexByte(head, '\n')
	if n < 1 || head[n-1] != '\r' {
		return nil, errBareLF
	}
	line, rest := head[:n-1], head[n+1:]
	m := run(line, isToken)
	if m == 0 || m == len(line) || line[m] != ' ' {
		return nil, errMethod
	}
	if m > maxMethod {
		return nil, errMethodSize
	}
	r.Method = line[:m:m]
	end := bytes.LastIndexByte(line, ' ')
	if end <= m+1 {
		return nil, errRequestLine
	}
	if err := r.parseVersion(line[end+1:]); err != nil {
		return nil, err
	}
	target := line[m+1 : end : end]
	if l.Target > 0 && len(target) > l.Target {
		return nil, errTargetSize
	}
	return rest, r.parseTarget(target)
}

func (r *Request) parseVersion(v []byte) *Error {
	const name = "HTTP/1."
	if len(v) != len(name)+1 || string(v[:5]) != name[:5] || v[6] != '.' || !digit(v[5]) || !digit(v[7]) {
		return errVersion
	}
	if v[5] != '1' || v[7] > '1' {
		return errVersionOther
	}
	r.Minor = v[7] - '0'
	return nil
}

func digit(c byte) bool { return c-'0' <= 9 }

// interpret reads what the fields mean.
func (r *Request) interpret() *Error {
	var f framing
	if err := f.read(r.Fields, r.Minor); err != nil {
		return err
	}
	if err := r.readFields(); err != nil {
		return err
	}
	if f.upgrade && r.Minor > 0 { // RFC 9110, 7.8: a server must ignore it in 1.0
		var err *Error
		if r.Upgrade, err = protocol(r.Fields); err != nil {
			return err
		}
	}
	r.Close = f.closes(r.Minor)
	switch {
	case f.chunked:
		r.Length = -1
	case f.length > 0:
		r.Length = f.length
	}
	return r.checkBody()
}

// checkBody refuses bodies where other parsers see none, and settles whether 100 Continue is awaited.
func (r *Request) checkBody() *Error {
	if r.Length == 0 {
		r.Expect = false
		return nil
	}
	if m := string(r.Method); m == "CONNECT" && len(r.Protocol) == 0 || m == "TRACE" {
		return errConnectLength
	}
	return nil
}

// readFields reads Host, Expect and TE.
func (r *Request) readFields() *Error {
	hosts := 0
	for i := range r.Fields {
		v := r.Fields[i].Value
		switch r.Fields[i].Kind {
		case Host:
			if hosts++; hosts > 1 {
				return errHostTwice
			}
			if err := r.readHost(v); err != nil {
				return err
			}
		case Expect:
			if !same(v, "100-continue") {
				return errExpect
			}
			r.Expect = r.Major > 1 || r.Minor > 0 // RFC 9110, 10.1.1: it must be ignored in 1.0
		case TE:
			r.Trailers = r.Trailers || hasTrailers(v)
		}
	}
	if hosts == 0 && r.Major == 1 && r.Minor > 0 {
		return errHostMissing
	}
	return nil
}

// readHost takes the Host field's value, which must be the target's host where
// that has one: RFC 9112, 3.2.2, lets the target win, but who reads only Host
// would then read another request.
func (r *Request) readHost(v []byte) *Error {
	if r.Host != nil {
		if !equal(r.Host, v) {
			return errHostDiffers
		}
		return nil
	}
	if !ValidHost(v) {
		return errHost
	}
	r.Host = v
	return nil
}

// hasTrailers says whether a TE field has "trailers" (RFC 9110, 10.1.4).
func hasTrailers(list []byte) bool {
	for list != nil {
		var coding []byte
		if coding, list = element(list); same(coding, "trailers") {
			return true
		}
	}
	return false
}
