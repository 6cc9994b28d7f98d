package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// leftover is how old an Unpack's working folder must be to be one that nobody works in any more.
const leftover = time.Hour

// Prune removes from dir all releases but those in keep, and what interrupted
// Unpacks left behind.
func Prune(dir string, keep ...string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("prune releases: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		if stale(entry, keep) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("prune releases: %w", err)
	}
	return nil
}

func stale(entry fs.DirEntry, keep []string) bool {
	if strings.HasPrefix(entry.Name(), partial) {
		info, err := entry.Info()
		return err == nil && time.Since(info.ModTime()) > leftover
	}
	hash := strings.TrimSuffix(entry.Name(), ".tar")
	return hashForm.MatchString(hash) && !slices.Contains(keep, hash)
}

// syncTree brings every folder of tree to the disk; its files are there already.
func syncTree(tree string) error {
	return filepath.WalkDir(tree, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return syncPath(file)
	})
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return f.Sync()
}
