// Package wire is HTTP as it stands in a buffer: the heads and chunks of
// HTTP/1.1 (RFC 9112), read and written without allocating, and the Request
// and Response by which all versions of HTTP meet in the engine.
//
// It does no input or output. What two parsers could read differently is
// refused, never repaired: an *Error says by which status. So is, beyond what the
// RFCs demand,
//   - a second Content-Length, Transfer-Encoding or Host, though it be equal;
//   - a Transfer-Encoding that is not just "chunked" (501 if chunked comes last, and once);
//   - an absolute-form target whose host is not the Host field's;
//   - a host that is no plain name or address, see ValidHost, and a target with
//     what no browser sends, see ValidPath;
//   - a Connection field that names a field which must go on, like Content-Length;
//   - a body in CONNECT and TRACE, and a length or coding in 1xx and 204 answers;
//   - framing in trailers, and more than a little of chunk extensions.
//
// Accepted, because it is common and means one thing only: a status line without
// the space after its status, "Content-Length: 0" in 204, bytes beyond ASCII in
// field values, empty elements in Connection, and white space where the grammar
// of chunk extensions has it.
//
// Slices in a Request or a Response point into the buffer that was parsed (or,
// for HTTP/2 and 3, into what the field decoder returned) and are valid for as
// long as that is; nothing in this module writes to them.
package wire

// Field is one field line (RFC 9110, 5). Name is as it came, in lower case in
// HTTP/2 and 3; compare names by Kind or by Is.
type Field struct {
	Name, Value []byte
	Kind        Kind
}

// Kind is what the engine has to know of a field, found once, when it is read.
type Kind uint8

// The kinds. Those from Hop to HTTP2Settings end at this hop (RFC 9110, 7.6.1),
// see HopByHop; those up to Expect are never forwarded as they came, see Framing.
const (
	Other      Kind = iota
	Hop             // named by the message's Connection field
	Connection      // and the fields below, by their names
	KeepAlive
	ProxyConnection
	ProxyAuthenticate
	ProxyAuthorization
	TE
	Trailer
	TransferEncoding
	Upgrade
	HTTP2Settings
	ContentLength
	Host
	Expect

	Claim      // says where a request came from, or what another proxy thinks of it: X-Real-IP, X-Client-IP, Proxy, X-Original-URL, …
	Trivet     // X-Trivet-…
	Underscore // has an underscore in its name, which many an app takes for a hyphen
	Forwarded  // RFC 7239
	XForwardedFor
	XForwardedProto
	XForwardedHost
	XForwarded // any other X-Forwarded-…
	XRequestID
	Traceparent // W3C Trace Context
	Tracestate

	AcceptEncoding
	Authorization
	CacheControl
	ContentEncoding
	ContentRange
	ContentType
	Cookie
	Date
	ETag
	IfMatch
	IfModifiedSince
	IfNoneMatch
	IfRange
	IfUnmodifiedSince
	LastModified
	Location
	Origin
	Range
	Referer
	RetryAfter
	Server
	SetCookie
	UserAgent
	Vary
)

// HopByHop says that the field ends at this hop (RFC 9110, 7.6.1).
func (k Kind) HopByHop() bool { return k-Hop <= HTTP2Settings-Hop }

// Framing says that the field is never copied from one message to another:
// whoever writes a message writes these fields itself, if at all.
func (k Kind) Framing() bool { return k-Hop <= Expect-Hop }

// Request is a request's head.
type Request struct {
	Method []byte
	// Scheme of an absolute-form target or of :scheme; empty in origin-form.
	Scheme []byte
	// Host is the authority that the request is for: of the absolute-form
	// target or :authority, else the Host field. Valid (RFC 3986, 3.2.2), with
	// its port if it has one; empty only in an HTTP/1.0 request without it.
	Host []byte
	// Path is the target in origin-form, path and query; "*" for OPTIONS *;
	// empty for an ordinary CONNECT, whose authority is Host.
	Path []byte
	// Protocol is :protocol of an extended CONNECT (RFC 8441, 9220), else
	// empty. In HTTP/1.1 an upgrade is in Upgrade.
	Protocol []byte
	// Upgrade is the first protocol of the Upgrade field where Connection names
	// it, else empty. It is never HTTP or TLS, which are passed over.
	Upgrade []byte
	// Fields in their order, without pseudo fields; Host, framing and hop-by-hop fields are among them, marked by Kind.
	Fields []Field
	// Length of the body in bytes; 0: none, -1: until its end (chunked, or END_STREAM).
	Length int64
	// Major and Minor are the version: 1.0, 1.1, 2.0 or 3.0.
	Major, Minor uint8
	// Close says that the connection ends with this exchange.
	Close bool
	// Expect says that the client awaits 100 Continue.
	Expect bool
	// Trailers says that TE has "trailers".
	Trailers bool

	path []byte // a Path that does not stand in the buffer as it must be
}

// Response is a response's head.
type Response struct {
	Status int
	Reason []byte
	Fields []Field
	// Length of the body: 0: none (by method, status or Content-Length: 0),
	// -1: chunked, -2: until the connection closes.
	Length int64
	// Declared is what Content-Length says, -1 without it. It differs from
	// Length in answers to HEAD and in 304, which tell the length of what is not sent.
	Declared int64
	// Minor version.
	Minor uint8
	// Close says that the connection cannot be used again.
	Close bool
}

// UntilClose is the Length of an answer that ends with its connection.
const UntilClose = -2

// Limits bound a head. A zero is no limit, and so is a nil *Limits.
type Limits struct {
	Target int // bytes of the request target: 414
	Field  int // bytes of one field line without its CRLF: 431
	Head   int // bytes of the head without leading empty lines: 431
	Count  int // of field lines: 431
}

// Error is a message that must not be forwarded.
type Error struct {
	Status int    // to answer a request with: 400, 414, 417, 431, 501, 505; 502 of a Response
	Why    string // for logs and for the client, without anything of the message
}

// Error is Why.
func (e *Error) Error() string { return e.Why }
