package h2

// static is the table that every connection begins with (RFC 7541, appendix A).
var static = [61]entry{
	fixed(":authority", ""),
	fixed(":method", "GET"),
	fixed(":method", "POST"),
	fixed(":path", "/"),
	fixed(":path", "/index.html"),
	fixed(":scheme", "http"),
	fixed(":scheme", "https"),
	fixed(":status", "200"),
	fixed(":status", "204"),
	fixed(":status", "206"),
	fixed(":status", "304"),
	fixed(":status", "400"),
	fixed(":status", "404"),
	fixed(":status", "500"),
	fixed("accept-charset", ""),
	fixed("accept-encoding", "gzip, deflate"),
	fixed("accept-language", ""),
	fixed("accept-ranges", ""),
	fixed("accept", ""),
	fixed("access-control-allow-origin", ""),
	fixed("age", ""),
	fixed("allow", ""),
	fixed("authorization", ""),
	fixed("cache-control", ""),
	fixed("content-disposition", ""),
	fixed("content-encoding", ""),
	fixed("content-language", ""),
	fixed("content-length", ""),
	fixed("content-location", ""),
	fixed("content-range", ""),
	fixed("content-type", ""),
	fixed("cookie", ""),
	fixed("date", ""),
	fixed("etag", ""),
	fixed("expect", ""),
	fixed("expires", ""),
	fixed("from", ""),
	fixed("host", ""),
	fixed("if-match", ""),
	fixed("if-modified-since", ""),
	fixed("if-none-match", ""),
	fixed("if-range", ""),
	fixed("if-unmodified-since", ""),
	fixed("last-modified", ""),
	fixed("link", ""),
	fixed("location", ""),
	fixed("max-forwards", ""),
	fixed("proxy-authenticate", ""),
	fixed("proxy-authorization", ""),
	fixed("range", ""),
	fixed("referer", ""),
	fixed("refresh", ""),
	fixed("retry-after", ""),
	fixed("server", ""),
	fixed("set-cookie", ""),
	fixed("strict-transport-security", ""),
	fixed("transfer-encoding", ""),
	fixed("user-agent", ""),
	fixed("vary", ""),
	fixed("via", ""),
	fixed("www-authenticate", ""),
}

func fixed(name, value string) entry { return entry{[]byte(name), []byte(value)} }

// staticNames are the first indices of the names in static, pseudo fields apart.
var staticNames = func() map[string]int {
	m := make(map[string]int)
	for i := len(static) - 1; i >= 0 && static[i].name[0] != ':'; i-- {
		m[string(static[i].name)] = i + 1
	}
	return m
}()
