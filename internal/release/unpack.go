package release

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// ErrCorrupt is wrapped by Unpack when the bytes are not those that the hash names, or are no release.
var ErrCorrupt = errors.New("is not the release that was asked for")

// Path returns where the release of that hash is unpacked in dir; the tar is beside it, at Path + ".tar".
func Path(dir, hash string) string { return filepath.Join(dir, hash) }

// Have reports whether the release of that hash is unpacked in dir, with its tar.
func Have(dir, hash string) bool {
	if !hashForm.MatchString(hash) {
		return false
	}
	_, errDir := os.Stat(Path(dir, hash))
	_, errTar := os.Stat(Path(dir, hash) + ".tar")
	return errDir == nil && errTar == nil
}

// Unpack reads the tar of a release from r, checks that hash names it, and
// lays it out at Path(dir, hash), readable by all; the tar stays beside it for
// servers that do not have it yet. Either all of it appears or nothing. If the
// release is there already, r is not read.
func Unpack(r io.Reader, hash, dir string) error {
	if !hashForm.MatchString(hash) {
		return fmt.Errorf("unpack release %q: %w", hash, ErrCorrupt)
	}
	if Have(dir, hash) {
		return nil
	}
	if err := unpack(r, hash, dir); err != nil {
		return fmt.Errorf("unpack release %.12s: %w", hash, err)
	}
	return nil
}

func unpack(r io.Reader, hash, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(dir, partial+"*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	file := filepath.Join(temp, "tar")
	if err := receive(r, hash, file); err != nil {
		return err
	}
	tree := filepath.Join(temp, "tree")
	if err := extract(file, tree); err != nil {
		return err
	}
	return install(file, tree, Path(dir, hash), dir)
}

// partial begins the name of a folder that an Unpack works in.
const partial = ".unpack-"

// receive saves r as file and checks its hash.
func receive(r io.Reader, hash, file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Chmod(0o644); err != nil { // whatever the umask
		return err
	}
	sum := sha256.New()
	// A tar has a header for each file beside the bytes.
	const most = MaxBytes + MaxFiles*2048
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(r, most+1))
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); n > most || got != hash {
		return fmt.Errorf("what came %w", ErrCorrupt)
	}
	return f.Sync()
}

// install renames the tar and the tree to their places. The tree comes last,
// and replaces what a former attempt may have left half done.
func install(file, tree, place, dir string) error {
	if err := syncTree(tree); err != nil {
		return err
	}
	if err := os.Rename(file, place+".tar"); err != nil {
		return err
	}
	if _, err := os.Stat(place); err == nil {
		return syncPath(dir) // a release is never written again, so what is there is it
	}
	if err := os.Rename(tree, place); err != nil {
		return err
	}
	return syncPath(dir)
}

// extract lays out the tar file as the folder tree.
func extract(file, tree string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := makeDir(tree); err != nil {
		return err
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	x := &extractor{root: root, tar: tar.NewReader(f), dirs: map[string]bool{".": true}}
	if err := x.run(); err != nil {
		return err
	}
	for _, top := range []string{AppDir, StaticDir} {
		if err := root.MkdirAll(top, 0o755); err != nil {
			return err
		}
		if err := root.Chmod(top, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// extractor writes entries below root, which the kernel keeps it from leaving
// (os.Root refuses .. and links that lead outside). What is written lies in
// folders that the tar itself made, never behind a link: where a link leads is
// judged by its name, which must be where it really is.
type extractor struct {
	root  *os.Root
	dirs  map[string]bool // made so far
	tar   *tar.Reader
	files int
	bytes int64
}

func (x *extractor) run() error {
	for {
		h, err := x.tar.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w: %w", ErrCorrupt, err)
		}
		if err := x.entry(h); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

func (x *extractor) entry(h *tar.Header) error {
	name := strings.TrimSuffix(h.Name, "/")
	top, _, _ := strings.Cut(name, "/")
	if !filepath.IsLocal(name) || path.Clean(name) != name || (top != AppDir && top != StaticDir) {
		return fmt.Errorf("the path leads outside app/ and static/: %w", ErrCorrupt)
	}
	if !x.dirs[path.Dir(name)] {
		return fmt.Errorf("its folder does not come before it: %w", ErrCorrupt)
	}
	x.files++
	x.bytes += h.Size
	if x.files > 2*MaxFiles || h.Size < 0 || x.bytes > MaxBytes {
		return fmt.Errorf("too many files or bytes: %w", ErrCorrupt)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		x.dirs[name] = true
		if err := x.root.Mkdir(name, 0o755); err != nil {
			return err
		}
		return x.root.Chmod(name, 0o755)
	case tar.TypeSymlink:
		if name == top || !inside(name, h.Linkname) {
			return fmt.Errorf("the link leads to %q, outside its folder: %w", h.Linkname, ErrCorrupt)
		}
		return x.root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		return x.regular(h, name)
	}
	return fmt.Errorf("is of type %q, neither file, folder nor link: %w", h.Typeflag, ErrCorrupt)
}

func (x *extractor) regular(h *tar.Header, name string) error {
	f, err := x.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if _, err := io.Copy(f, x.tar); err != nil {
		return err
	}
	// Never setuid or writable by others, whatever the tar says.
	mode := os.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}
