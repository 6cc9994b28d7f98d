// Package atomicfile writes files so that a reader, or a machine that loses
// power, sees the old content or the new and nothing between.
package atomicfile

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write replaces the file name by data: a temporary file in the same folder,
// fsync, rename, fsync of the folder (rename(2), fsync(2)). The file is never
// readable with a wider mode than perm, and belongs to uid and gid when those
// are not negative.
func Write(name string, data []byte, perm os.FileMode, uid, gid int) (err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+".tmp-*")
	if err != nil {
		return fmt.Errorf("create file beside %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if err := fill(f, data, perm, uid, gid); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return syncDir(dir)
}

// fill brings mode, owner and content into f and to the disk, and closes it.
func fill(f *os.File, data []byte, perm os.FileMode, uid, gid int) error {
	if uid >= 0 || gid >= 0 {
		if err := f.Chown(uid, gid); err != nil {
			return err
		}
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}
