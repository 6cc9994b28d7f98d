package obvious

import "regexp"

// Response is an answer's head; what is in it is as in wire.Response, in Latin 1.
type Response struct {
	Status           int
	Reason           string
	Fields           []Field
	Length, Declared int64
	Minor            int
	Close            bool
}

var reStatusLine = regexp.MustCompile(`^HTTP/1\.([01]) ([1-5])([0-9])([0-9])(?: (` + value + `))?$`)

// ParseResponse reads the head of an answer to a request of that method; ok says that it is not refused.
func ParseResponse(head []byte, method string, l Limits) (r *Response, ok bool) {
	m := &message{}
	line := reStatusLine.FindStringSubmatch(m.split(Latin1(head), l))
	if line == nil || len(m.statuses) > 0 {
		return nil, false
	}
	number := func(i int) int { return int(line[i][0] - '0') }
	r = &Response{
		Minor: number(1), Status: number(2)*100 + number(3)*10 + number(4), Reason: line[5],
	}
	r.Close = closes(m.options(), r.Minor)
	r.Fields = m.fields
	r.parseLength(m, method)
	return r, len(m.statuses) == 0
}

// parseLength goes through RFC 9112, 6.3, in its order.
func (r *Response) parseLength(m *message, method string) {
	chunked := m.chunked(r.Minor)
	r.Declared = m.length()
	m.refuse(502, chunked && r.Declared >= 0)
	if r.Status == 204 || r.Status/100 == 1 {
		m.refuse(502, chunked || r.Declared > 0)
	}
	switch {
	case method == "HEAD", r.Status/100 == 1, r.Status == 204, r.Status == 304:
		r.Length = 0
	case method == "CONNECT" && r.Status/100 == 2:
		r.Length = 0
	case chunked:
		r.Length = -1
	case r.Declared >= 0:
		r.Length = r.Declared
	default:
		r.Length, r.Close = -2, true
	}
}
