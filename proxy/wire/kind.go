package wire

import "bytes"

// names of the fields that have a Kind, in lower case.
var names = []struct {
	name string
	kind Kind
}{
	{"connection", Connection},
	{"keep-alive", KeepAlive},
	{"proxy-connection", ProxyConnection},
	{"proxy-authenticate", ProxyAuthenticate},
	{"proxy-authorization", ProxyAuthorization},
	{"te", TE},
	{"trailer", Trailer},
	{"transfer-encoding", TransferEncoding},
	{"upgrade", Upgrade},
	{"http2-settings", HTTP2Settings},
	{"content-length", ContentLength},
	{"host", Host},
	{"expect", Expect},

	{"x-real-ip", Claim},
	{"x-client-ip", Claim},
	{"x-cluster-client-ip", Claim},
	{"x-originating-ip", Claim},
	{"x-remote-ip", Claim},
	{"x-remote-addr", Claim},
	{"x-proxyuser-ip", Claim},
	{"x-forwarder-for", Claim},
	{"client-ip", Claim},
	{"true-client-ip", Claim},
	{"cf-connecting-ip", Claim},
	{"fastly-client-ip", Claim},
	{"proxy", Claim},
	{"x-original-url", Claim},
	{"x-original-uri", Claim},
	{"x-original-host", Claim},
	{"x-original-method", Claim},
	{"x-rewrite-url", Claim},
	{"x-host", Claim},
	{"x-http-host-override", Claim},
	{"x-scheme", Claim},
	{"x-url-scheme", Claim},
	{"x-ssl", Claim},
	{"front-end-https", Claim},

	{"x-trivet", Trivet},
	{"forwarded", Forwarded},
	{"x-forwarded-for", XForwardedFor},
	{"x-forwarded-proto", XForwardedProto},
	{"x-forwarded-host", XForwardedHost},
	{"x-forwarded", XForwarded},
	{"x-request-id", XRequestID},
	{"traceparent", Traceparent},
	{"tracestate", Tracestate},

	{"accept-encoding", AcceptEncoding},
	{"authorization", Authorization},
	{"cache-control", CacheControl},
	{"content-encoding", ContentEncoding},
	{"content-range", ContentRange},
	{"content-type", ContentType},
	{"cookie", Cookie},
	{"date", Date},
	{"etag", ETag},
	{"if-match", IfMatch},
	{"if-modified-since", IfModifiedSince},
	{"if-none-match", IfNoneMatch},
	{"if-range", IfRange},
	{"if-unmodified-since", IfUnmodifiedSince},
	{"last-modified", LastModified},
	{"location", Location},
	{"origin", Origin},
	{"range", Range},
	{"referer", Referer},
	{"retry-after", RetryAfter},
	{"server", Server},
	{"set-cookie", SetCookie},
	{"user-agent", UserAgent},
	{"vary", Vary},
}

// slots is a hash table of names with open addressing: an index into names plus one.
var slots = hashNames()

func hashNames() (t [512]uint8) {
	for i, n := range names {
		h := slot([]byte(n.name))
		for t[h] != 0 {
			h = (h + 1) % uint(len(t))
		}
		t[h] = uint8(i + 1)
	}
	return t
}

// slot is where the search for a name begins. The name is not empty.
func slot(name []byte) uint {
	n := len(name)
	first, middle, last := lower[name[0]], lower[name[n/2]], lower[name[n-1]]
	return (uint(n)*37 + uint(first)*5 + uint(middle)*83 + uint(last)*11) % 512
}

// KindOf is the Kind of the field of that name, in any case of letters.
func KindOf(name []byte) Kind {
	if len(name) == 0 {
		return Other
	}
	for h := slot(name); slots[h] != 0; h = (h + 1) % uint(len(slots)) {
		if n := &names[slots[h]-1]; same(name, n.name) {
			return n.kind
		}
	}
	return kindByShape(name)
}

// kindByShape is the Kind of a name that is not in the table.
func kindByShape(name []byte) Kind {
	const trivet, forwarded = "x-trivet-", "x-forwarded-"
	if name[0]|0x20 == 'x' {
		if len(name) > len(trivet) && same(name[:len(trivet)], trivet) {
			return Trivet
		}
		if len(name) > len(forwarded) && same(name[:len(forwarded)], forwarded) {
			return XForwarded
		}
	}
	if bytes.IndexByte(name, '_') >= 0 {
		return Underscore
	}
	return Other
}

// Is says that the field has that name, in any case of letters.
func (f Field) Is(name string) bool {
	if len(f.Name) != len(name) {
		return false
	}
	for i, c := range f.Name {
		if lower[c] != lower[name[i]] {
			return false
		}
	}
	return true
}

// Find is the value of the first field of the kind, nil if there is none.
func Find(fields []Field, k Kind) []byte {
	for i := range fields {
		if fields[i].Kind == k {
			return present(fields[i].Value)
		}
	}
	return nil
}

// Get is the value of the first field of that name, nil if there is none.
func Get(fields []Field, name string) []byte {
	for i := range fields {
		if fields[i].Is(name) {
			return present(fields[i].Value)
		}
	}
	return nil
}

// present is value, not nil: an empty field is there all the same.
func present(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}
