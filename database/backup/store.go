package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// store is a place that keeps copies: a folder, another server's folder, a bucket.
type store interface {
	// name is what an operator calls the place: a server's name, or s3.
	name() string
	// put keeps an object, whole or not at all, under its name.
	put(ctx context.Context, o object) error
	// get opens what is kept; errMissing if there is none. The caller checks what it reads.
	get(ctx context.Context, name string) (io.ReadCloser, error)
	// list returns all whose names begin with prefix.
	list(ctx context.Context, prefix string) ([]entry, error)
	remove(ctx context.Context, name string) error
}

// object is what is put into a store; it can be read more than once.
type object struct {
	name   string
	size   int64
	sha256 string
	open   func() (io.ReadCloser, error)
}

func bytesObject(name string, data []byte) object {
	return object{name, int64(len(data)), digest(data), func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

// entry is one object in a store's list.
type entry struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

var errMissing = errors.New("it is not there")

// objectForm is what names of objects may be: nothing that leads out of the folder.
var objectForm = regexp.MustCompile(`^(full/[0-9]{8}-[0-9]{6}-[a-z0-9-]{1,32}/([0-9]{5,9}|manifest\.json)|log/[0-9a-f-]{36}\.[0-9]{8}-[0-9]{6}/[0-9-]{1,100})$`)

// folder is a store on this server's disk.
type folder struct {
	server string
	dir    string
}

// reserve is what copies leave free: the database has the same disk.
const reserve = 1 << 30

func (f folder) name() string { return f.server }

// path is where an object lies.
func (f folder) path(name string) (string, error) {
	if !objectForm.MatchString(name) {
		return "", fmt.Errorf("%q is no name of a copy", name)
	}
	return filepath.Join(f.dir, filepath.FromSlash(name)), nil
}

// room refuses what would not leave the reserve free.
func (f folder) room(size int64) error {
	var s unix.Statfs_t
	if err := unix.Statfs(f.dir, &s); err != nil || s.Bsize <= 0 {
		return fmt.Errorf("look for room in %s: %w", f.dir, err)
	}
	free := int64(s.Bavail) * s.Bsize
	if keep := min(int64(reserve), int64(s.Blocks)*s.Bsize/10); free-size < keep {
		return fmt.Errorf("no room for %d MiB on %s: %d MiB are free, of which %d MiB are the database's", mib(size), f.server, mib(free), mib(keep))
	}
	return nil
}

func mib(bytes int64) int64 { return (bytes + 1<<20 - 1) >> 20 }

func (f folder) put(_ context.Context, o object) error {
	path, err := f.path(o.name)
	if err != nil {
		return err
	}
	if err := f.room(o.size); err != nil {
		return err
	}
	r, err := o.open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	return f.write(path, o, r)
}

// write keeps what r gives under path once it is wholly on the disk and has the digest that it should.
func (f folder) write(path string, o object, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	err = copyChecked(tmp, r, o)
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (f folder) get(_ context.Context, name string) (io.ReadCloser, error) {
	path, err := f.path(name)
	if err != nil {
		return nil, err
	}
	r, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errMissing
	}
	return r, err
}

func (f folder) list(_ context.Context, prefix string) ([]entry, error) {
	var out []entry
	err := filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(f.dir, path)
		if err != nil || d.IsDir() || !strings.HasPrefix(name, prefix) || !objectForm.MatchString(name) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return nil // it has just been removed
		}
		out = append(out, entry{name, info.Size()})
		return nil
	})
	return out, err
}

func (f folder) remove(_ context.Context, name string) error {
	path, err := f.path(name)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_ = os.Remove(filepath.Dir(path)) // if that was the last one there
	return nil
}

// clean removes what an interrupted put left.
func (f folder) clean() {
	_ = filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), ".new-") {
			_ = os.Remove(path)
		}
		return nil
	})
}
