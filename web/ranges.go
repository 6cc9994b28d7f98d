package web

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"

	"trivet/proxy"
	"trivet/proxy/wire"
)

// mostRanges that one request may ask for; with more, all of the file is sent,
// as with ranges that together are longer than it (RFC 9110, 14.2 allows it).
const mostRanges = 16

// span is the bytes from to (without) to of a file.
type span struct{ from, to int64 }

// of is the value of Content-Range for s of a file of that size.
func (s span) of(size int64) []byte { return fmt.Appendf(nil, "bytes %d-%d/%d", s.from, s.to-1, size) }

// ranges are those that a request asks for; none: all of it. It is false when
// none of them can be had (416).
func (f *file) ranges(fields []wire.Field) ([]span, bool) {
	list, ok := bytes.CutPrefix(wire.Find(fields, wire.Range), []byte("bytes="))
	if !ok || !f.unchanged(wire.Find(fields, wire.IfRange)) {
		return nil, true // a unit that is not understood must be ignored
	}
	var spans []span
	var total int64
	asked := 0
	for element := range bytes.SplitSeq(list, []byte{','}) {
		s, valid, there := f.span(bytes.TrimSpace(element))
		if !valid {
			return nil, true // not a range at all: ignored
		}
		asked++
		if there {
			spans, total = append(spans, s), total+s.to-s.from
		}
	}
	if asked > mostRanges || len(spans) > 1 && total > f.size {
		return nil, true
	}
	return spans, len(spans) > 0
}

// span reads one of first-last, first- and -suffix.
func (f *file) span(text []byte) (s span, valid, there bool) {
	first, last, ok := bytes.Cut(text, []byte{'-'})
	if !ok || len(first) == 0 && len(last) == 0 {
		return span{}, false, false
	}
	if len(first) == 0 {
		n, err := strconv.ParseUint(string(last), 10, 62)
		from := max(0, f.size-int64(n))
		return span{from, f.size}, err == nil, n > 0 && f.size > 0
	}
	from, err := strconv.ParseUint(string(first), 10, 62)
	if err != nil {
		return span{}, false, false
	}
	to := f.size
	if len(last) > 0 {
		n, err := strconv.ParseUint(string(last), 10, 62)
		if err != nil || n < from {
			return span{}, false, false
		}
		to = min(to, int64(n)+1)
	}
	return span{int64(from), to}, true, int64(from) < f.size
}

// unchanged says whether If-Range allows a part: a strong tag or the very date (RFC 9110, 13.1.5).
func (f *file) unchanged(condition []byte) bool {
	if condition == nil || string(condition) == f.tag {
		return true
	}
	t, ok := when(condition)
	return ok && f.modified.Equal(t)
}

// serveParts answers with several ranges.
func (x *index) serveParts(e *proxy.Exchange, f *file, ranges []span) error {
	var content *os.File
	if f.content == nil {
		var err error
		if content, err = x.open(f); err != nil {
			return err
		}
		defer func() { _ = content.Close() }()
	}
	boundary := strconv.FormatUint(rand.Uint64(), 16)
	length := int64(len(boundary) + 8)
	heads := make([][]byte, len(ranges))
	for i, s := range ranges {
		heads[i] = fmt.Appendf(nil, "\r\n--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n", boundary, f.kind, s.of(f.size))
		length += int64(len(heads[i])) + s.to - s.from
	}
	fields := []wire.Field{{Name: contentType, Value: []byte("multipart/byteranges; boundary=" + boundary), Kind: wire.ContentType}}
	for _, known := range f.fields {
		if known.Kind != wire.ContentType {
			fields = append(fields, known)
		}
	}
	if e.Start(206, fields, length) != nil {
		return nil //nolint:nilerr // the visitor has gone
	}
	for i, s := range ranges {
		if _, err := e.Write(heads[i]); err != nil {
			return nil //nolint:nilerr // likewise
		}
		if _, err := io.Copy(e, f.section(content, s)); err != nil {
			e.Abort(err)
			return nil //nolint:nilerr // the answer had begun
		}
	}
	if _, err := fmt.Fprintf(e, "\r\n--%s--\r\n", boundary); err == nil {
		_ = e.End(nil)
	}
	return nil
}
