package site

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// Load reads and checks the site file at path, and the files and folders that
// it names. If anything is wrong the error is Problems and holds all of it.
func Load(path string) (*Site, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load site file: %w", err)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("load site file: %w", err)
	}
	r := newReport(path)
	s := r.read(data)
	if s != nil {
		s.Dir = dir
		r.files(s, filepath.Join(dir, filepath.Base(path)))
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// Parse reads and checks a site file's content; name is what problems call it.
// Unlike Load it does not look at the files that the content names. If
// anything is wrong the error is Problems and holds all of it.
func Parse(name string, data []byte) (*Site, error) {
	r := newReport(name)
	s := r.read(data)
	if err := r.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// read decodes and validates data; nil if it has no shape at all.
func (r *report) read(data []byte) *Site {
	root := r.document(data)
	if root == nil {
		return nil
	}
	s := Default()
	r.decode("", root, reflect.ValueOf(&s).Elem())
	if r.unread[""] {
		return nil
	}
	r.fill(&s)
	r.validate(&s)
	return &s
}

// Path returns where a file is that the site file calls name.
func (s *Site) Path(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(s.Dir, name)
}

// files notes what is wrong in the files that s names. self is the site file.
func (r *report) files(s *Site, self string) {
	if s.Web.Static != "" && r.folder("web.static", s.Path(s.Web.Static)) && within(s.Path(s.Web.Static), self) {
		r.add("web.static", "the folder holds this site file, which visitors could then read; give the files a folder of their own")
	}
	if s.App.Source != "" {
		r.folder("app.source", s.Path(s.App.Source))
	}
	if s.App.Secrets != "" {
		r.secrets(s)
	}
	if s.Database.Backup.S3 != (S3{}) {
		r.bucketKeys(s)
	}
}

// folder reports whether path is a folder, and notes it if not.
func (r *report) folder(key, path string) bool {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		r.add(key, "there is no folder %s", path)
	case err != nil:
		r.add(key, "%v", err)
	case !info.IsDir():
		r.add(key, "%s is a file; a folder belongs here", path)
	default:
		return true
	}
	return false
}

// within reports whether path lies in dir.
func within(dir, path string) bool {
	rel, err := filepath.Rel(real(dir), real(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// real follows symbolic links as far as there are any.
func real(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	return path
}
