package wire

import (
	"bytes"
	"net/netip"
)

// What request targets are refused for.
var (
	errTarget         = &Error{400, "the request target has a byte that it may not have"}
	errTargetForm     = &Error{400, "the request target has a form that the method may not have"}
	errTargetEscape   = &Error{400, "the request target has a % without two hexadecimal digits"}
	errTargetScheme   = &Error{400, "the request target has a scheme other than http and https"}
	errTargetHost     = &Error{400, "the request target has no valid host"}
	errTargetFragment = &Error{400, "the request target has a fragment"}
)

var (
	schemeHTTP  = []byte("http")
	schemeHTTPS = []byte("https")
	slash       = []byte("/")
	asterisk    = []byte("*")
)

// parseTarget reads a target in one of its four forms (RFC 9112, 3.2).
func (r *Request) parseTarget(t []byte) *Error {
	switch {
	case string(r.Method) == "CONNECT":
		return r.parseAuthority(t)
	case t[0] == '/':
		r.Path = t
		return checkPath(t)
	case len(t) == 1 && t[0] == '*':
		r.Path = asterisk
		if string(r.Method) != "OPTIONS" {
			return errTargetForm
		}
		return nil
	}
	return r.parseAbsolute(t)
}

// parseAuthority reads the target of CONNECT: a host and a port.
func (r *Request) parseAuthority(t []byte) *Error {
	port := bytes.LastIndexByte(t, ':')
	if !ValidHost(t) || port < 0 || bytes.IndexByte(t[port:], ']') > 0 {
		return errTargetHost
	}
	r.Host = t
	return nil
}

// parseAbsolute reads a target that has a scheme and a host.
func (r *Request) parseAbsolute(t []byte) *Error {
	n := bytes.Index(t, []byte("://"))
	switch {
	case n < 0:
		return errTargetForm
	case same(t[:n], "http"):
		r.Scheme = schemeHTTP
	case same(t[:n], "https"):
		r.Scheme = schemeHTTPS
	default:
		return errTargetScheme
	}
	t = t[n+3:]
	end := bytes.IndexAny(t, "/?#")
	if end < 0 {
		end = len(t)
	}
	if !ValidHost(t[:end]) {
		return errTargetHost
	}
	r.Host = t[:end:end]
	return r.absolutePath(t[end:])
}

// absolutePath makes the origin-form of what follows the host.
func (r *Request) absolutePath(t []byte) *Error {
	switch {
	case len(t) == 0 && string(r.Method) == "OPTIONS": // RFC 9112, 3.2.4
		r.Path = asterisk
		return nil
	case len(t) == 0:
		r.Path = slash
		return nil
	case t[0] == '?':
		r.path = append(append(r.path[:0], '/'), t...)
		t = r.path
	}
	r.Path = t
	return checkPath(t)
}

// checkPath checks a target in origin-form.
func checkPath(t []byte) *Error {
	n := 0
	for n < len(t) && classes[t[n]]&isPath != 0 {
		if t[n] == '%' && !escaped(t[n:]) {
			return errTargetEscape
		}
		n++
	}
	if n < len(t) && t[n] == '?' {
		n += run(t[n:], isQuery)
	}
	switch {
	case n == len(t):
		return nil
	case t[n] == '#':
		return errTargetFragment
	}
	return errTarget
}

// escaped says that b, which begins with %, goes on with two hexadecimal digits.
func escaped(b []byte) bool {
	return len(b) > 2 && classes[b[1]]&classes[b[2]]&isHex != 0
}

// ValidPath says that p is a target in origin-form: "/", then the bytes of a
// path and perhaps "?" and a query (RFC 3986, 3.3 and 3.4), with these
// differences. What browsers send as it is may come: []^`{|} everywhere, a
// backslash and a stray % in the query. The rest of ASCII's punctuation ("<>),
// a backslash or a stray % in the path, fragments, spaces, control bytes and all
// beyond ASCII may not.
func ValidPath(p []byte) bool {
	return len(p) > 0 && p[0] == '/' && checkPath(p) == nil
}

// ValidMethod says that m is a token of at most 32 bytes (RFC 9110, 9.1).
func ValidMethod(m []byte) bool { return len(m) <= maxMethod && all(m, isToken) }

// ValidName says that name is a token, as the name of a field must be (RFC 9110, 5.1).
// HTTP/2 and 3 forbid capitals besides.
func ValidName(name []byte) bool { return all(name, isToken) }

// ValidValue says that v may be a field's value (RFC 9110, 5.5): no control
// byte but a tab, and no space or tab at either end.
func ValidValue(v []byte) bool {
	return control(v, 0) == len(v) && len(trim(v)) == len(v)
}

// maxHost is the longest name in DNS with its last dot.
const maxHost = 254

// ValidHost says that h is a host with or without a port: a name of letters,
// digits, "-", "." and "_" without empty labels (but for one dot at its end), an
// IPv4 address, or an IPv6 address in brackets and without a zone; and a port
// from 1 to 65535 without leading zeros. RFC 3986, 3.2.2, has more, but
// percent-encoding, sub-delimiters, userinfo and empty ports are what parsers
// read differently.
func ValidHost(h []byte) bool {
	if len(h) > 0 && h[0] == '[' {
		n := bytes.IndexByte(h, ']')
		return n > 0 && validIPv6(h[1:n]) && validPort(h[n+1:])
	}
	n := run(h, isHost)
	return n <= maxHost && validLabels(h[:n]) && validPort(h[n:])
}

func validLabels(h []byte) bool {
	if len(h) == 0 || h[0] == '.' {
		return false
	}
	for i := 1; i < len(h); i++ {
		if h[i] == '.' && h[i-1] == '.' {
			return false
		}
	}
	return true
}

// validPort checks what follows a host: nothing, or a colon and a port.
func validPort(p []byte) bool {
	switch {
	case len(p) == 0:
		return true
	case p[0] != ':' || len(p) < 2 || len(p) > 6 || p[1] == '0':
		return false
	}
	n := 0
	for _, c := range p[1:] {
		if !digit(c) {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}

func validIPv6(a []byte) bool {
	if len(a) > 45 || bytes.IndexByte(a, '%') >= 0 {
		return false
	}
	ip, err := netip.ParseAddr(string(a))
	return err == nil && ip.Is6()
}
