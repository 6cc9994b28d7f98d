package web

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
)

// serve answers r, a GET or HEAD, with f: ranges (RFC 9110, 14), conditions
// (13) and packed siblings (8.4). An error means that nothing was answered yet.
func (x *index) serve(rw http.ResponseWriter, r *http.Request, f *file) error {
	h := rw.Header()
	h.Set("Content-Type", f.kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", freshness(f.name))
	body := f
	if f.packed != nil {
		h.Set("Vary", "Accept-Encoding")
		if coding := preferred(f, r.Header.Get("Accept-Encoding")); coding != "" {
			h.Set("Content-Encoding", coding)
			body = f.packed[coding]
		}
	}
	h.Set("ETag", body.tag)
	content, err := x.open(body)
	if err != nil {
		return err
	}
	defer func() { _ = content.Close() }()
	if !strings.HasPrefix(r.Header.Get("Range"), "bytes=") {
		r.Header.Del("Range") // a unit that is not understood must be ignored (RFC 9110, 14.2)
	}
	http.ServeContent(rw, r, "", f.modified, content)
	return nil
}

// readSeekCloser is what http.ServeContent reads.
type readSeekCloser interface {
	io.ReadSeeker
	io.Closer
}

// open returns f's content, from memory or from the disk.
func (x *index) open(f *file) (readSeekCloser, error) {
	if f.content != nil {
		return inMemory{bytes.NewReader(f.content)}, nil
	}
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

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error { return nil }

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

// preferred returns the best coding that f has and accept, an Accept-Encoding,
// takes: br before gzip; "" is none.
func preferred(f *file, accept string) string {
	for _, coding := range []string{"br", "gzip"} {
		if f.packed[coding] != nil && takes(accept, coding) {
			return coding
		}
	}
	return ""
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
