// Package obvious reads HTTP/1.1 as package wire does, slowly and plainly: by
// splitting, and by regular expressions that were copied from the grammar of
// RFC 9110, 9112 and 3986. Tests compare the two; a difference is a bug in one
// of them. Nothing but tests imports it.
//
// A refused message has all the statuses that something in it deserves, for
// which of them is found first does not matter.
package obvious

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Field is one field line. Hop says that it ends at this hop.
type Field struct {
	Name, Value string
	Hop         bool
}

// Limits are those of package wire.
type Limits struct{ Target, Field, Head, Count int }

// message is what requests and responses have in common.
type message struct {
	fields   []Field
	statuses []int
}

func (m *message) refuse(status int, when bool) {
	if when {
		m.statuses = append(m.statuses, status)
	}
}

const (
	token = "[-!#$%&'*+.^_`|~0-9A-Za-z]+"
	ows   = `[ \t]*`
	value = `[\t\x{20}-\x{7e}\x{80}-\x{ff}]*`
)

var (
	reLeading = regexp.MustCompile(`^(?:\r\n)*`)
	reBegin   = regexp.MustCompile(`^(?:` + token + `|\r?$)`)
	reField   = regexp.MustCompile(`^(` + token + `):(` + value + `)$`)
	reToken   = regexp.MustCompile(`^` + token + `$`)
	reCodings = regexp.MustCompile(`^` + ows + token + `(?:` + ows + `,` + ows + token + `)*` + ows + `$`)
	reLength  = regexp.MustCompile(`^[0-9]{1,19}$`)
)

// Latin1 makes a rune of each byte, so that expressions see bytes beyond ASCII.
func Latin1(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

// HeadEnd is where the head at the beginning of stream ends, 0 if it has not
// ended yet, or -1 if it is refused.
func HeadEnd(stream []byte) int {
	s := string(stream)
	lead := len(reLeading.FindString(s))
	if lead > 4*len("\r\n") {
		return -1
	}
	rest, end := s[lead:], 0
	if !reBegin.MatchString(rest) {
		return -1
	}
	if n := strings.Index(rest, "\r\n\r\n"); n >= 0 {
		rest = rest[:n+4]
		end = lead + len(rest)
	}
	if bare(rest) {
		return -1
	}
	return end
}

// bare says that a line feed in s has no carriage return before it.
func bare(s string) bool {
	return slices.ContainsFunc(strings.SplitAfter(s, "\n"), func(line string) bool {
		return strings.HasSuffix(line, "\n") && !strings.HasSuffix(line, "\r\n")
	})
}

// split takes a head apart into its start line and its fields.
func (m *message) split(head string, l Limits) (start string) {
	m.refuse(400, !strings.HasSuffix(head, "\r\n\r\n") || strings.Count(head, "\r\n\r\n") > 1)
	m.refuse(431, l.Head > 0 && len([]rune(head)) > l.Head)
	lines := strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")
	m.refuse(431, l.Count > 0 && len(lines)-1 > l.Count)
	for _, line := range lines[1:] {
		m.refuse(431, l.Field > 0 && len([]rune(line)) > l.Field)
		found := reField.FindStringSubmatch(line)
		m.refuse(400, found == nil)
		if found != nil {
			m.fields = append(m.fields, Field{Name: found[1], Value: strings.Trim(found[2], " \t")})
		}
	}
	return lines[0]
}

// values of all fields of that name, which is in lower case.
func (m *message) values(name string) (all []string) {
	for _, f := range m.fields {
		if strings.ToLower(f.Name) == name {
			all = append(all, f.Value)
		}
	}
	return all
}

// length is what Content-Length says, -1 without it.
func (m *message) length() int64 {
	all := m.values("content-length")
	if len(all) == 0 {
		return -1
	}
	m.refuse(400, len(all) > 1)
	m.refuse(400, !reLength.MatchString(all[0]))
	n, err := strconv.ParseInt(all[0], 10, 64)
	m.refuse(400, err != nil)
	return n
}

// chunked says that the body is in chunks.
func (m *message) chunked(minor int) bool {
	all := m.values("transfer-encoding")
	if len(all) == 0 {
		return false
	}
	m.refuse(400, minor == 0)
	m.refuse(400, len(all) > 1)
	for _, v := range all {
		if v := strings.ToLower(v); v != "chunked" {
			m.refuse(codingStatus(v), true)
		}
	}
	return true
}

// codingStatus is how a Transfer-Encoding other than chunked is refused.
func codingStatus(v string) int {
	var codings []string
	for _, c := range strings.Split(v, ",") {
		codings = append(codings, strings.Trim(c, " \t"))
	}
	if reCodings.MatchString(v) && slices.Index(codings, "chunked") == len(codings)-1 {
		return 501
	}
	return 400
}

// hopByHop are the fields that end at this hop whether Connection names them or not.
var hopByHop = []string{
	"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
	"te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
}

// endToEnd are the fields that Connection must not name.
var endToEnd = []string{
	"transfer-encoding", "content-length", "host", "expect", "content-encoding", "content-range", "cache-control",
}

// options are Connection's, in lower case. The fields that they name are marked.
func (m *message) options() []string {
	var all []string
	elements := 0
	for _, v := range m.values("connection") {
		for _, o := range strings.Split(v, ",") {
			elements++
			if o = strings.ToLower(strings.Trim(o, " \t")); o != "" {
				all = append(all, o)
			}
		}
	}
	m.refuse(400, elements > 32)
	for _, o := range all {
		m.refuse(400, !reToken.MatchString(o) || slices.Contains(endToEnd, o))
	}
	for i, f := range m.fields {
		name := strings.ToLower(f.Name)
		named := slices.Contains(all, name) && name != "close"
		m.fields[i].Hop = slices.Contains(hopByHop, name) || named
	}
	return all
}

// closes says that the connection ends with the message.
func closes(options []string, minor int) bool {
	return slices.Contains(options, "close") || minor == 0 && !slices.Contains(options, "keep-alive")
}
