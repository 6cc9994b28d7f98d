package obvious

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Request is a request's head; what is in it is as in wire.Request, in Latin 1.
type Request struct {
	Method, Scheme, Host, Path, Upgrade string
	Fields                              []Field
	Length                              int64
	Minor                               int
	Close, Expect, Trailers             bool
}

var (
	reRequestLine = regexp.MustCompile(`^([^ ]*) (.*) ([^ ]*)$`)
	reVersion     = regexp.MustCompile(`^HTTP/[0-9]\.[0-9]$`)
	reOrigin      = regexp.MustCompile("^/(?:[-._~!$&'()*+,;=:@/0-9A-Za-z\\[\\]^`{|}]|%[0-9A-Fa-f]{2})*" +
		"(?:\\?[-._~!$&'()*+,;=:@/0-9A-Za-z\\[\\]^`{|}%?\\\\]*)?$")
	reAbsolute = regexp.MustCompile(`^((?i:https?))://([^/?#]*)(.*)$`)
	reProtocol = regexp.MustCompile(`^(?:` + token + `(?:/` + token + `)?)?$`)
	reOwn      = regexp.MustCompile(`^(?i:h2c|h2|http|tls)(?:/|$)`)
)

// ParseRequest reads a head. It is refused if there are statuses.
func ParseRequest(head []byte, l Limits) (*Request, []int) {
	s := Latin1(head)
	lead := reLeading.FindString(s)
	m := &message{}
	m.refuse(400, len(lead) > 8)
	r := &Request{}
	r.parseLine(m, m.split(s[len(lead):], l), l)
	if len(m.statuses) > 0 {
		return nil, m.statuses
	}
	options := m.options()
	r.parseFields(m, options)
	r.Close = closes(options, r.Minor)
	r.Fields = m.fields
	if len(m.statuses) > 0 {
		return nil, m.statuses
	}
	return r, nil
}

func (r *Request) parseLine(m *message, line string, l Limits) {
	method, _, spaced := strings.Cut(line, " ")
	m.refuse(501, spaced && len(method) > 32 && reToken.MatchString(method))
	parts := reRequestLine.FindStringSubmatch(line)
	if parts == nil {
		m.refuse(400, true)
		return
	}
	r.Method = parts[1]
	m.refuse(400, !reToken.MatchString(r.Method))
	m.refuse(414, l.Target > 0 && len([]rune(parts[2])) > l.Target)
	r.parseTarget(m, parts[2])
	version := parts[3]
	m.refuse(400, !reVersion.MatchString(version))
	m.refuse(505, reVersion.MatchString(version) && version != "HTTP/1.0" && version != "HTTP/1.1")
	r.Minor = strings.Index("01", version[max(len(version)-1, 0):])
}

func (r *Request) parseTarget(m *message, target string) {
	absolute := reAbsolute.FindStringSubmatch(target)
	switch {
	case r.Method == "CONNECT":
		r.Host = target
		m.refuse(400, !validHost(target) || !rePort.MatchString(target))
	case target == "*":
		r.Path = target
		m.refuse(400, r.Method != "OPTIONS")
	case absolute != nil:
		r.Scheme, r.Host, r.Path = strings.ToLower(absolute[1]), absolute[2], absolute[3]
		m.refuse(400, !validHost(r.Host))
		switch {
		case r.Path == "" && r.Method == "OPTIONS":
			r.Path = "*"
			return
		case !strings.HasPrefix(r.Path, "/"):
			r.Path = "/" + r.Path
		}
		m.refuse(400, !reOrigin.MatchString(r.Path))
	default:
		r.Path = target
		m.refuse(400, !reOrigin.MatchString(target))
	}
}

func (r *Request) parseFields(m *message, options []string) {
	length, chunked := m.length(), m.chunked(r.Minor)
	m.refuse(400, length >= 0 && chunked)
	r.Length = max(length, 0)
	if chunked {
		r.Length = -1
	}
	m.refuse(400, r.Length != 0 && (r.Method == "CONNECT" || r.Method == "TRACE"))
	r.parseHost(m)
	for _, v := range m.values("expect") {
		m.refuse(417, strings.ToLower(v) != "100-continue")
		r.Expect = r.Minor == 1 && r.Length != 0
	}
	for _, v := range m.values("te") {
		for _, coding := range strings.Split(strings.ToLower(v), ",") {
			r.Trailers = r.Trailers || strings.Trim(coding, " \t") == "trailers"
		}
	}
	if all := m.values("upgrade"); len(all) > 0 && r.Minor == 1 && slices.Contains(options, "upgrade") {
		first, _, _ := strings.Cut(all[0], ",")
		r.Upgrade = strings.Trim(first, " \t")
		m.refuse(400, !reProtocol.MatchString(r.Upgrade))
		if reOwn.MatchString(r.Upgrade) {
			r.Upgrade = ""
		}
	}
}

func (r *Request) parseHost(m *message) {
	all := m.values("host")
	m.refuse(400, len(all) == 0 && r.Minor == 1)
	m.refuse(400, len(all) > 1)
	if len(all) == 0 {
		return
	}
	m.refuse(400, !validHost(all[0]))
	m.refuse(400, r.Host != "" && !strings.EqualFold(r.Host, all[0]))
	if r.Host == "" {
		r.Host = all[0]
	}
}

var (
	rePort = regexp.MustCompile(`:([1-9][0-9]{0,4})$`)
	reName = regexp.MustCompile(`^[-_0-9A-Za-z]+(?:\.[-_0-9A-Za-z]+)*\.?$`)
	reIPv6 = regexp.MustCompile(ipv6())
)

// validHost is a name, or an address in brackets, and perhaps a port.
func validHost(host string) bool {
	if port := rePort.FindStringSubmatch(host); port != nil {
		if n, _ := strconv.Atoi(port[1]); n > 65535 {
			return false
		}
		host = strings.TrimSuffix(host, port[0])
	}
	return len(host) <= 254 && (reName.MatchString(host) || reIPv6.MatchString(host))
}

// ipv6 is IPv6address of RFC 3986, 3.2.2, in brackets.
func ipv6() string {
	const (
		octet = `(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9][0-9]|[0-9])`
		ipv4  = octet + `\.` + octet + `\.` + octet + `\.` + octet
		h16   = `[0-9A-Fa-f]{1,4}`
		ls32  = `(?:` + h16 + `:` + h16 + `|` + ipv4 + `)`
		c     = `(?:` + h16 + `:)`
	)
	upTo := func(n string) string { return `(?:` + c + `{0,` + n + `}` + h16 + `)?` }
	return `^\[(?:` + strings.Join([]string{
		c + `{6}` + ls32,
		`::` + c + `{5}` + ls32,
		`(?:` + h16 + `)?::` + c + `{4}` + ls32,
		upTo("1") + `::` + c + `{3}` + ls32,
		upTo("2") + `::` + c + `{2}` + ls32,
		upTo("3") + `::` + c + ls32,
		upTo("4") + `::` + ls32,
		upTo("5") + `::` + h16,
		upTo("6") + `::`,
	}, "|") + `)\]$`
}
