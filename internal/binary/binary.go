// Package binary keeps a server's trivet binaries in one folder: BUILD/trivet
// for each build, never written again, and the symbolic link current to the
// folder of the one in force. What runs goes on from its own file, whatever the link
// says; whoever starts it again gets the one in force.
//
// A build is named by 16 hex digits of its SHA-256. Neither a path nor a time
// or an inode would say which binary a process runs: the same one may be
// copied, and another put in its place.
package binary

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// InForce is the path of the binary in force, inside the folder.
const InForce = link + "/" + name

// keep is how many builds stay, the one in force included, for a way back.
const keep = 3

const (
	link = "current"
	name = "trivet"
)

// Build names the binary at path.
func Build(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("name binary: %w", err)
	}
	defer func() { _ = f.Close() }()
	return build(f)
}

func build(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", fmt.Errorf("name binary: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// Add puts a copy of the binary at path into the folder dir, which is made, and
// returns its build; the one in force stays. A build that a folder of peers
// holds is linked, so that servers on one machine share its memory.
func Add(dir, path string, peers ...string) (string, error) {
	b, err := Build(path)
	if err != nil {
		return "", err
	}
	to := file(dir, b)
	for _, d := range []string{dir, filepath.Dir(to)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", fmt.Errorf("add binary: %w", err)
		}
		if err := os.Chmod(d, 0o755); err != nil { // umask must not shut the workers' users out
			return "", fmt.Errorf("add binary: %w", err)
		}
	}
	if have, err := Build(to); err == nil && have == b {
		return b, nil
	}
	for _, p := range peers {
		if have, err := Build(file(p, b)); err == nil && have == b && os.Link(file(p, b), to) == nil {
			return b, nil
		}
	}
	if err := copyFile(to, path, b); err != nil {
		return "", fmt.Errorf("add binary: %w", err)
	}
	return b, nil
}

func file(dir, build string) string { return filepath.Join(dir, build, name) }

// copyFile makes the file to, whole or not at all, and makes sure that it is still the build that was named.
func copyFile(to, from, want string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.CreateTemp(filepath.Dir(to), ".trivet-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = out.Close()
			_ = os.Remove(out.Name())
		}
	}()
	got, err := build(io.TeeReader(in, out))
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s changed while it was copied", from)
	}
	if err := errors.Join(out.Chmod(0o755), out.Sync()); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}

// Use puts a build that the folder holds in force, at once and for good.
func Use(dir, build string) error {
	if _, err := os.Stat(file(dir, build)); err != nil {
		return fmt.Errorf("use build %s: %w", build, err)
	}
	next := filepath.Join(dir, "."+link+".next")
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("use build %s: %w", build, err)
	}
	if err := os.Symlink(build, next); err != nil {
		return fmt.Errorf("use build %s: %w", build, err)
	}
	if err := os.Rename(next, filepath.Join(dir, link)); err != nil {
		return fmt.Errorf("use build %s: %w", build, err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}

// Current is the build in force; empty if there is none.
func Current(dir string) (string, error) {
	to, err := os.Readlink(filepath.Join(dir, link))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("find build in force: %w", err)
	}
	return to, nil
}

// Prune removes the oldest builds, but never the one in force, nor those named.
func Prune(dir string, named ...string) error {
	current, err := Current(dir)
	if err != nil {
		return err
	}
	paths, _ := filepath.Glob(filepath.Join(dir, "*", name))
	added := map[string]time.Time{} // by build
	for _, p := range paths {
		info, err := os.Lstat(p)
		b := filepath.Base(filepath.Dir(p))
		if err == nil && b != link && b != current && !slices.Contains(named, b) {
			added[b] = info.ModTime()
		}
	}
	old := slices.SortedFunc(maps.Keys(added), func(a, b string) int { return cmp.Or(added[b].Compare(added[a]), cmp.Compare(a, b)) })
	var errs []error
	for _, b := range old[min(len(old), max(0, keep-1-len(named))):] {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, b)))
	}
	return errors.Join(errs...)
}
