package web

import (
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"trivet/proxy"
	"trivet/proxy/wire"
)

// serve answers x, a GET or HEAD, with f: conditions (RFC 9110, 13), ranges
// (14) and packed siblings (8.4). An error means that nothing was answered yet.
func (x *index) serve(e *proxy.Exchange, f *file) error {
	body := f.variant(wire.Find(e.Request.Fields, wire.AcceptEncoding))
	switch body.judge(e.Request.Fields) {
	case notModified:
		e.Answer(304, body.fields, nil)
		return nil
	case failed:
		e.Answer(412, body.fields, nil)
		return nil
	}
	ranges, ok := body.ranges(e.Request.Fields)
	if !ok {
		e.Answer(416, []wire.Field{{Name: contentRange, Value: fmt.Appendf(nil, "bytes */%d", body.size), Kind: wire.ContentRange}}, nil)
		return nil
	}
	if len(ranges) > 0 {
		return x.servePart(e, body, ranges)
	}
	if body.content != nil {
		e.Answer(200, body.fields, body.content)
		return nil
	}
	return x.serveDisk(e, 200, body.fields, body, span{0, body.size})
}

// servePart answers with one range, or several as multipart/byteranges (RFC 9110, 14.6).
func (x *index) servePart(e *proxy.Exchange, f *file, ranges []span) error {
	if len(ranges) > 1 {
		return x.serveParts(e, f, ranges)
	}
	s := ranges[0]
	fields := append(slices.Clip(f.fields), wire.Field{Name: contentRange, Value: s.of(f.size), Kind: wire.ContentRange})
	if f.content != nil {
		e.Answer(206, fields, f.content[s.from:s.to])
		return nil
	}
	return x.serveDisk(e, 206, fields, f, s)
}

// serveDisk answers with a part of f, which is too large for the memory.
func (x *index) serveDisk(e *proxy.Exchange, status int, fields []wire.Field, f *file, s span) error {
	content, err := x.open(f)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	if e.Start(status, fields, s.to-s.from) != nil {
		return nil //nolint:nilerr // the visitor has gone
	}
	if err := e.SendFile(content, s.from, s.to-s.from); err != nil {
		e.Abort(err)
		return nil //nolint:nilerr // the answer had begun
	}
	_ = e.End(nil)
	return nil
}

// open returns f's content on the disk.
func (x *index) open(f *file) (*os.File, error) {
	root, err := os.OpenRoot(x.source.dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	content, err := root.Open(f.name)
	if err != nil {
		return nil, err
	}
	info, err := content.Stat()
	if err == nil && info.Size() != f.size {
		err = fmt.Errorf("read %s: it has %d bytes, and had %d when it was indexed", f.name, info.Size(), f.size)
	}
	if err != nil {
		_ = content.Close()
		return nil, err
	}
	return content, nil
}

// section reads f's bytes in s, from memory or from content.
func (f *file) section(content *os.File, s span) io.Reader {
	if f.content != nil {
		return strings.NewReader(string(f.content[s.from:s.to]))
	}
	return io.NewSectionReader(content, s.from, s.to-s.from)
}

// freshness is the Cache-Control of a file: pages are always asked for again
// (and cost a 304), fingerprinted files never.
func freshness(name string) string {
	switch path.Ext(name) {
	case ".html", ".htm":
		return "no-cache"
	}
	if fingerprinted(path.Base(name)) {
		return "public, max-age=31536000, immutable"
	}
	return "public, max-age=300"
}

// fingerprinted matches names such as app.3f9a2b1c.js, which change with their
// content: eight or more hexadecimal digits before the ending, letters and
// figures among them, so that a date is none.
func fingerprinted(base string) bool {
	base = strings.TrimSuffix(base, ".map")
	stem := strings.TrimSuffix(base, path.Ext(base))
	i := strings.LastIndexAny(stem, ".-")
	hash := stem[i+1:]
	return i > 0 && len(hash) >= 8 && strings.Trim(hash, "0123456789abcdef") == "" &&
		strings.ContainsAny(hash, "0123456789") && strings.ContainsAny(hash, "abcdef")
}

// variant is the best coding of f that accept, an Accept-Encoding, takes: br
// before gzip before f itself.
func (f *file) variant(accept []byte) *file {
	if f.packed == nil || accept == nil {
		return f
	}
	for _, coding := range [...]string{"br", "gzip"} {
		if p := f.packed[coding]; p != nil && takes(string(accept), coding) {
			return p
		}
	}
	return f
}

// takes says whether accept names coding with a weight above zero. "*" is not
// counted as naming it.
func takes(accept, coding string) bool {
	for element := range strings.SplitSeq(accept, ",") {
		name, weight, _ := strings.Cut(element, ";")
		if !strings.EqualFold(strings.TrimSpace(name), coding) {
			continue
		}
		weight = strings.ReplaceAll(weight, " ", "")
		return strings.Trim(strings.TrimPrefix(weight, "q="), "0.") != "" || weight == ""
	}
	return false
}
