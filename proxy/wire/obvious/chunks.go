package obvious

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Body is a chunked body taken apart.
type Body struct {
	Data    []byte
	Trailer []Field // without those that package wire drops
	Rest    []byte  // what followed the body
}

// Verdict says what became of a body.
type Verdict int

// The verdicts.
const (
	Whole      Verdict = iota
	Incomplete         // it may go on
	Refused
)

var reSizeLine = regexp.MustCompile(`^([0-9A-Fa-f]{1,16})((?:` + ows + `;` + ows + token +
	`(?:` + ows + `=` + ows + `(?:` + token + `|` + quoted + `))?)*)$`)

const quoted = `"(?:[\t\x{20}\x{21}\x{23}-\x{5b}\x{5d}-\x{7e}\x{80}-\x{ff}]|\\[\t\x{20}-\x{7e}\x{80}-\x{ff}])*"`

// Chunks takes apart the chunked body at the beginning of stream. One that
// cannot be completed may still be called Incomplete.
func Chunks(stream []byte) (b Body, v Verdict) {
	extensions := 0
	for {
		n := strings.Index(string(stream), "\n")
		if n < 0 {
			return b, Incomplete
		}
		line := reSizeLine.FindStringSubmatch(Latin1([]byte(strings.TrimSuffix(string(stream[:n]), "\r"))))
		if line == nil || !strings.HasSuffix(string(stream[:n]), "\r") {
			return b, Refused
		}
		size, err := strconv.ParseInt(line[1], 16, 64)
		extensions += len([]rune(line[2]))
		if err != nil || extensions > 4096 {
			return b, Refused
		}
		stream = stream[n+1:]
		if size == 0 {
			return b.trailer(stream)
		}
		if stream, v = b.chunk(stream, size); v != Whole {
			return b, v
		}
	}
}

// chunk takes the data of one chunk and the CRLF after it.
func (b *Body) chunk(stream []byte, size int64) ([]byte, Verdict) {
	size = min(size, int64(len(stream)))
	b.Data = append(b.Data, stream[:size]...)
	stream = stream[size:]
	switch {
	case strings.HasPrefix(string(stream), "\r\n"):
		return stream[2:], Whole
	case len(stream) == 0 || string(stream) == "\r":
		return nil, Incomplete
	}
	return nil, Refused
}

// forbidden in a trailer.
var forbidden = []string{"transfer-encoding", "content-length", "host", "connection", "trailer", "expect", "te", "upgrade"}

func (b Body) trailer(stream []byte) (Body, Verdict) {
	s := string(stream)
	end := strings.Index("\n"+s, "\n\r\n")
	section := s
	if end >= 0 {
		section = s[:end+2]
	}
	if bare(section) || len(section) > 8192 {
		return b, Refused
	}
	if end < 0 {
		return b, Incomplete
	}
	m := &message{}
	if end > 0 {
		m.split("\r\n"+Latin1([]byte(section)), Limits{Count: 64})
	}
	for _, f := range m.fields {
		m.refuse(400, slices.Contains(forbidden, strings.ToLower(f.Name)))
	}
	if len(m.statuses) > 0 {
		return b, Refused
	}
	b.Trailer = m.fields
	b.Rest = stream[len(section):]
	return b, Whole
}
