package web

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
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
	files   map[string]*file
	skipped int // symlinks that lead outside, devices, dot files
}

// file is one file as it was when the release was indexed.
type file struct {
	name     string
	kind     string // Content-Type
	tag      string // strong ETag by content, quoted
	size     int64
	modified time.Time
	content  []byte           // nil: too large, read from the disk
	packed   map[string]*file // by content coding: siblings with .br and .gz
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
	f := &file{name: name, kind: kindOf(name), size: info.Size(), modified: info.ModTime()}
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

// pair finds the packed siblings of each file.
func (x *index) pair() {
	for name, f := range x.files {
		for coding, ending := range map[string]string{"br": ".br", "gzip": ".gz"} {
			if p := x.files[name+ending]; p != nil {
				if f.packed == nil {
					f.packed = map[string]*file{}
				}
				f.packed[coding] = p
			}
		}
	}
}

// file returns the file that answers for a URL's path, or nil. Only clean
// paths have one.
func (x *index) file(url string) *file {
	name, ok := strings.CutPrefix(url, "/")
	if !ok {
		return nil
	}
	if name == "" || strings.HasSuffix(name, "/") {
		if x.source.page == "" {
			return nil
		}
		name += x.source.page
	}
	return x.files[name]
}

// isFolder says that url lacks only its slash to be a folder with a page.
func (x *index) isFolder(url string) bool {
	return url != "" && !strings.HasSuffix(url, "/") && path.Clean(url) == url && x.file(url+"/") != nil
}
