package web

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"trivet/proxy/wire"
)

// Names of fields, and values that are always the same.
var (
	acceptEncoding  = []byte("Accept-Encoding")
	acceptRanges    = []byte("Accept-Ranges")
	cacheControl    = []byte("Cache-Control")
	contentEncoding = []byte("Content-Encoding")
	contentRange    = []byte("Content-Range")
	contentType     = []byte("Content-Type")
	eTag            = []byte("ETag")
	lastModified    = []byte("Last-Modified")
	noSniff         = []byte("X-Content-Type-Options")
	vary            = []byte("Vary")
)

// What is kept in memory: each file up to smallFile, all together up to
// memoryBound.
const (
	smallFile   = 256 << 10
	memoryBound = 32 << 20
)

// source says which files an index is of.
type source struct {
	dir     string // absolute
	release string // hash of the release
	page    string // file that answers for a folder
}

// index is every file of one release, by its name relative to the folder. It
// is never changed once read; the zero value has no files.
type index struct {
	source  source
	files   map[string]*file // by name relative to the folder
	byPath  map[string]*file // by path of the URL, folders' pages under both / and their names
	folders map[string]bool  // paths that lack only a slash to be a folder with a page
	skipped int              // symlinks that lead outside, devices, dot files
}

// file is one file as it was when the release was indexed.
type file struct {
	name     string
	kind     string // Content-Type
	tag      string // strong ETag by content, quoted
	size     int64
	modified time.Time
	content  []byte           // nil: too large, read from the disk
	packed   map[string]*file // by content coding: siblings with .br and .gz, as what answers for this one
	fields   []wire.Field     // of every answer with it
}

// readIndex reads every file below s.dir. A release without that folder has an
// empty index; a release that is not there, not yet maybe, is an error.
func readIndex(ctx context.Context, s source) (*index, error) {
	root, err := os.OpenRoot(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		_, err := os.Stat(filepath.Dir(s.dir))
		return &index{source: s}, err
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	x := &index{source: s, files: map[string]*file{}}
	memory := int64(memoryBound)
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return x.visit(root, name, d, &memory)
	})
	if err != nil {
		return nil, err
	}
	x.pair()
	x.route()
	return x, nil
}

// visit adds one entry of the folder, or leaves it out.
func (x *index) visit(root *os.Root, name string, d fs.DirEntry, memory *int64) error {
	if hidden(name) {
		x.skipped++
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	if d.IsDir() {
		return nil
	}
	info, err := root.Stat(name) // through a symlink, but never out of the root
	if err != nil || !info.Mode().IsRegular() {
		x.skipped++
		return nil
	}
	f, err := readFile(root, name, info, *memory)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	*memory -= int64(len(f.content))
	x.files[name] = f
	return nil
}

// hidden says that name, relative and clean, has an element that begins with a
// dot and is not .well-known (RFC 8615).
func hidden(name string) bool {
	for e := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(e, ".") && e != "." && e != ".well-known" {
			return true
		}
	}
	return false
}

func readFile(root *os.Root, name string, info fs.FileInfo, memory int64) (*file, error) {
	r, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	f := &file{name: name, kind: kindOf(name), size: info.Size(), modified: info.ModTime().UTC().Truncate(time.Second)}
	hash := sha256.New()
	if f.size <= smallFile && f.size <= memory {
		if f.content, err = io.ReadAll(r); err != nil {
			return nil, err
		}
		f.size = int64(len(f.content))
		hash.Write(f.content)
	} else if f.size, err = io.Copy(hash, r); err != nil {
		return nil, err
	}
	f.tag = `"` + base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:18]) + `"`
	return f, nil
}

// pair finds the packed siblings of each file and makes the fields of answers.
func (x *index) pair() {
	for name, f := range x.files {
		f.dress(f.kind, freshness(name), "")
	}
	for name, f := range x.files {
		for coding, ending := range map[string]string{"br": ".br", "gzip": ".gz"} {
			p := x.files[name+ending]
			if p == nil {
				continue
			}
			sibling := *p
			sibling.kind, sibling.packed = f.kind, nil
			sibling.dress(f.kind, freshness(name), coding)
			if f.packed == nil {
				f.packed = map[string]*file{}
				f.fields = append(f.fields, wire.Field{Name: vary, Value: acceptEncoding, Kind: wire.Vary})
			}
			f.packed[coding] = &sibling
		}
	}
}

// dress makes f's fields.
func (f *file) dress(kind, freshness, coding string) {
	f.fields = []wire.Field{
		{Name: contentType, Value: []byte(kind), Kind: wire.ContentType},
		{Name: cacheControl, Value: []byte(freshness), Kind: wire.CacheControl},
		{Name: eTag, Value: []byte(f.tag), Kind: wire.ETag},
		{Name: lastModified, Value: []byte(f.modified.Format(http.TimeFormat)), Kind: wire.LastModified},
		{Name: acceptRanges, Value: []byte("bytes")},
		{Name: noSniff, Value: []byte("nosniff")},
	}
	if coding != "" {
		f.fields = append(f.fields,
			wire.Field{Name: contentEncoding, Value: []byte(coding), Kind: wire.ContentEncoding},
			wire.Field{Name: vary, Value: acceptEncoding, Kind: wire.Vary})
	}
}

// route says which file answers for which path. Only clean paths have one.
func (x *index) route() {
	x.byPath, x.folders = make(map[string]*file, len(x.files)), map[string]bool{}
	for name, f := range x.files {
		x.byPath["/"+name] = f
		folder, base := path.Split(name)
		if base != x.source.page || x.source.page == "" {
			continue
		}
		x.byPath["/"+folder] = f
		if folder != "" {
			x.folders["/"+strings.TrimSuffix(folder, "/")] = true
		}
	}
}
