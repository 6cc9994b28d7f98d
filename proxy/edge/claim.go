package edge

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"

	"trivet/proxy"
	"trivet/proxy/wire"
)

// Client is the name of the field by which a balancer tells a web server who
// asks, proxies that the site trusts left aside.
var Client = []byte("X-Trivet-Client")

// Names and values of fields that are written here.
var (
	allow           = []byte("Allow")
	altSvc          = []byte("Alt-Svc")
	cacheControl    = []byte("Cache-Control")
	contentType     = []byte("Content-Type")
	forwarded       = []byte("Forwarded")
	forwardedFor    = []byte("X-Forwarded-For")
	forwardedHost   = []byte("X-Forwarded-Host")
	forwardedProto  = []byte("X-Forwarded-Proto")
	location        = []byte("Location")
	noSniff         = []byte("X-Content-Type-Options")
	requestID       = []byte("X-Request-Id")
	retryAfter      = []byte("Retry-After")
	strictTransport = []byte("Strict-Transport-Security")
	traceparent     = []byte("traceparent")
	tracestate      = []byte("tracestate")

	https   = []byte("https")
	methods = []byte("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
)

const maxID = 128 // bytes of a request ID that is taken over

// Keep says whether a visitor's field is forwarded as it came: not what says
// where the request came from, for that is written anew.
func Keep(f *wire.Field) bool { return f.Kind < wire.Claim || f.Kind > wire.Tracestate }

// name gives x its ID and trace, or takes them over from a trusted proxy.
func (r *Rules) name(x *proxy.Exchange) {
	trusted := r.trusts(x.Peer.Addr())
	if trusted {
		x.Client = r.visitor(x)
		takeOver(x)
	}
	Name(x)
}

// Name gives x what it has not of an ID and a trace, and its answer the ID.
func Name(x *proxy.Exchange) {
	complete(x)
	x.Out = append(x.Out, wire.Field{Name: requestID, Value: x.ID, Kind: wire.XRequestID})
}

func (r *Rules) trusts(a netip.Addr) bool {
	for _, p := range r.trusted {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// visitor is the last address in X-Forwarded-For that no trusted proxy has.
func (r *Rules) visitor(x *proxy.Exchange) netip.Addr {
	client := x.Peer.Addr()
	for _, f := range slices.Backward(x.Request.Fields) {
		if f.Kind != wire.XForwardedFor {
			continue
		}
		for _, text := range slices.Backward(elements(f.Value)) {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return client
			}
			if client = a.Unmap(); !r.trusts(client) {
				return client
			}
		}
	}
	return client
}

// givenID is a request ID that may be taken over: one visible word.
func givenID(fields []wire.Field) []byte {
	id := wire.Find(fields, wire.XRequestID)
	if len(id) == 0 || len(id) > maxID || slices.ContainsFunc(id, func(c byte) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' }) {
		return nil
	}
	return id
}

// takeOver gives x the ID and trace that its sender, who is trusted, says.
func takeOver(x *proxy.Exchange) {
	x.ID = givenID(x.Request.Fields)
	x.Trace, x.Unsampled = givenTrace(x.Request.Fields)
}

// givenTrace is the trace-id in a valid traceparent, and whether its flags say
// that the trace is not recorded (W3C Trace Context, 3.2.2).
func givenTrace(fields []wire.Field) (id []byte, unsampled bool) {
	v := wire.Find(fields, wire.Traceparent)
	if len(v) < 55 || v[2] != '-' || v[35] != '-' || v[52] != '-' || string(v[:2]) == "ff" || len(v) > 55 && v[55] != '-' {
		return nil, false
	}
	id, flags := v[3:35], v[53:55]
	if !isHex(id) || !isHex(v[36:52]) || zeros(id) || zeros(v[36:52]) || !isHex(flags) {
		return nil, false
	}
	last, _ := strconv.ParseUint(string(flags), 16, 8) // is hexadecimal
	return id, last&sampled == 0
}

// sampled is the flag of a trace that is recorded (W3C Trace Context, 3.2.2.5.1).
const sampled = 1

// givenHost is the X-Forwarded-Host that the last proxy said, if it is a host: a
// proxy may pass on what a visitor made up, and it goes into Forwarded.
func givenHost(fields []wire.Field) []byte {
	if host := last(fields, wire.XForwardedHost); wire.ValidHost(host) {
		return host
	}
	return nil
}

// givenProto is the X-Forwarded-Proto that the last proxy said, if it is one of the web's.
func givenProto(fields []wire.Field) []byte {
	switch proto := last(fields, wire.XForwardedProto); string(proto) {
	case "http", "https":
		return proto
	}
	return nil
}

// last is the last element of a list field that may come in several lines.
func last(fields []wire.Field, k wire.Kind) []byte {
	for _, f := range slices.Backward(fields) {
		if f.Kind == k {
			return bytes.TrimSpace(f.Value[bytes.LastIndexByte(f.Value, ',')+1:])
		}
	}
	return nil
}

func isHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func zeros(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != '0' }) }

func appendHex(b []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[v>>shift&15])
	}
	return b
}

// claim adds to the forwarded request who asks, for what, and in which trace.
func (r *Rules) claim(x *proxy.Exchange) {
	var before, host, proto []byte
	trusted := r.trusts(x.Peer.Addr())
	if trusted {
		before = joined(x, wire.XForwardedFor)
		host, proto = givenHost(x.Request.Fields), givenProto(x.Request.Fields)
	}
	if host == nil {
		host = x.Request.Host
	}
	if proto == nil {
		proto = https
	}
	peer := x.Peer.Addr()
	chain := x.Append(func(b []byte) []byte {
		if before != nil {
			b = append(append(b, before...), ", "...)
		}
		return peer.AppendTo(b)
	})
	x.Up = append(x.Up,
		wire.Field{Name: forwardedFor, Value: chain, Kind: wire.XForwardedFor},
		wire.Field{Name: forwardedProto, Value: proto, Kind: wire.XForwardedProto},
		wire.Field{Name: forwardedHost, Value: host, Kind: wire.XForwardedHost},
		wire.Field{Name: forwarded, Value: r.node(x, trusted, host, proto), Kind: wire.Forwarded},
		wire.Field{Name: requestID, Value: x.ID, Kind: wire.XRequestID},
		wire.Field{Name: Client, Value: x.Append(x.Client.AppendTo), Kind: wire.Trivet},
	)
	trace(x)
	if state := wire.Find(x.Request.Fields, wire.Tracestate); trusted && state != nil {
		x.Up = append(x.Up, wire.Field{Name: tracestate, Value: state, Kind: wire.Tracestate})
	}
}

// Follow gives x the ID and trace that the server before says, a span of its
// own, and hands them on.
func Follow(x *proxy.Exchange) {
	takeOver(x)
	complete(x)
	trace(x)
}

// complete makes what nobody has given: a trace, an ID which is the trace's,
// and always a span. They name, and keep no secret: the runtime's generator,
// seeded by the kernel, is good enough.
func complete(x *proxy.Exchange) {
	if x.Trace == nil {
		x.Trace = x.Append(func(b []byte) []byte { return appendHex(appendHex(b, rand.Uint64()), rand.Uint64()) })
	}
	if x.ID == nil {
		x.ID = x.Trace
	}
	x.Span = x.Append(func(b []byte) []byte { return appendHex(b, rand.Uint64()) })
}

// trace adds the traceparent of x's own span to what is forwarded.
func trace(x *proxy.Exchange) {
	value := x.Append(func(b []byte) []byte {
		b = append(append(b, "00-"...), x.Trace...)
		b = append(append(b, '-'), x.Span...)
		if x.Unsampled {
			return append(b, "-00"...)
		}
		return append(b, "-01"...)
	})
	x.Up = append(x.Up, wire.Field{Name: traceparent, Value: value, Kind: wire.Traceparent})
}

// node is the Forwarded element of this hop (RFC 7239, 4), after those of trusted proxies.
func (r *Rules) node(x *proxy.Exchange, trusted bool, host, proto []byte) []byte {
	var before []byte
	if trusted {
		before = joined(x, wire.Forwarded)
	}
	peer := x.Peer.Addr().Unmap()
	return x.Append(func(b []byte) []byte {
		if before != nil {
			b = append(append(b, before...), ", "...)
		}
		b = append(b, "for="...)
		if peer.Is6() {
			b = append(peer.AppendTo(append(b, `"[`...)), `]"`...)
		} else {
			b = peer.AppendTo(b)
		}
		b = append(append(b, `;host="`...), host...)
		return append(append(b, `";proto=`...), proto...)
	})
}

// joined is the value of a list field that may come in several lines; nil: none.
func joined(x *proxy.Exchange, k wire.Kind) []byte {
	var all []byte
	for _, f := range x.Request.Fields {
		switch {
		case f.Kind != k:
		case all == nil:
			all = f.Value
		default:
			all = append(append(slices.Clip(all), ", "...), f.Value...)
		}
	}
	return all
}

// elements are those of a comma-separated list, without the space around them.
func elements(v []byte) []string {
	var all []string
	for e := range bytes.SplitSeq(v, []byte{','}) {
		all = append(all, string(bytes.TrimSpace(e)))
	}
	return all
}
