package release

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// source is a folder that goes into a release under the name top.
type source struct {
	top  string
	dir  string
	skip func(rel string) bool // nil: nothing is left out
}

// packer writes one tar.
type packer struct {
	tar   *tar.Writer
	files int
	bytes int64
}

// pack writes the folders into a new temporary tar.
func pack(ctx context.Context, folders []source) (r *Release, err error) {
	f, err := os.CreateTemp("", "trivet-release-*.tar")
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	sum := sha256.New()
	p := &packer{tar: tar.NewWriter(io.MultiWriter(f, sum))}
	for _, s := range folders {
		if err := p.folder(ctx, s); err != nil {
			return nil, err
		}
	}
	if err := p.tar.Close(); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &Release{Hash: hex.EncodeToString(sum.Sum(nil)), Tar: f.Name(), Files: p.files, Bytes: info.Size()}, nil
}

// folder writes s; WalkDir visits names in lexical order, which makes the tar the same each time.
func (p *packer) folder(ctx context.Context, s source) error {
	root, err := filepath.EvalSymlinks(s.dir)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if rel != "." && s.skip != nil && s.skip(rel) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return p.entry(file, path.Join(s.top, filepath.ToSlash(rel)))
	})
}

// entry writes one file, folder or link.
func (p *packer) entry(file, name string) error {
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Mode: mode(info.Mode()), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	switch info.Mode().Type() {
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		return p.tar.WriteHeader(h)
	case fs.ModeSymlink:
		h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
		if h.Linkname, err = os.Readlink(file); err != nil {
			return err
		}
		if !inside(name, h.Linkname) {
			return fmt.Errorf("pack %s: the link leads to %s, outside its folder; copy the file in", file, h.Linkname)
		}
		return p.tar.WriteHeader(h)
	case 0:
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
		return p.regular(file, h)
	}
	return fmt.Errorf("pack %s: is neither a file, a folder nor a link", file)
}

// regular writes the content of a file.
func (p *packer) regular(file string, h *tar.Header) error {
	p.files++
	p.bytes += h.Size
	if p.files > MaxFiles || p.bytes > MaxBytes {
		return fmt.Errorf("pack %s: the release is too large (at most %d files and %d MiB)", file, MaxFiles, MaxBytes>>20)
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := p.tar.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.CopyN(p.tar, f, h.Size); err != nil {
		return fmt.Errorf("pack %s: %w (did it change meanwhile?)", file, err)
	}
	return nil
}

// mode is 0755 for what can be executed or entered and 0644 for the rest.
func mode(m fs.FileMode) int64 {
	if m.IsDir() || m&0o111 != 0 {
		return 0o755
	}
	return 0o644
}

// inside reports whether a link at name, which begins with its top folder, leads to a place in that folder.
func inside(name, target string) bool {
	if target == "" || path.IsAbs(target) {
		return false
	}
	top, _, _ := strings.Cut(name, "/")
	// The target is read one element at a time: path.Clean would take a/.. for
	// nothing although a may be a link itself. So no .. may follow a name.
	named := false
	for _, element := range strings.Split(target, "/") {
		if element == ".." && named {
			return false
		}
		named = named || (element != ".." && element != "." && element != "")
	}
	to := path.Join(path.Dir(name), target)
	return to == top || strings.HasPrefix(to, top+"/")
}
