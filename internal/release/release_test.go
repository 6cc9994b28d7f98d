package release_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/release"
	"trivet/site"
)

// source makes a folder with an app, static files and things that must not be published.
func source(t *testing.T) *site.Site {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"app/run.sh": "#!/bin/sh\n", "app/sub/data": "data", "app/.git/config": "secret", "app/.hidden": "kept",
		"static/index.html": "<h1>", "static/.env": "secret", "static/.well-known/x": "ok", "static/.git/HEAD": "secret",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "app/run.sh"), 0o4711); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/data", filepath.Join(dir, "app/link")); err != nil {
		t.Fatal(err)
	}
	s := site.Default()
	s.Dir, s.App.Source, s.Web.Static = dir, "app", "static"
	return &s
}

func build(t *testing.T, s *site.Site) *release.Release {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	r, err := release.Build(t.Context(), s, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tree lists what is below dir, with modes and contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		text := info.Mode().String()
		switch info.Mode().Type() {
		case 0:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(data)
		case fs.ModeSymlink:
			to, _ := os.Readlink(path)
			text += " " + to
		}
		got[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestBuildAndUnpack(t *testing.T) {
	s := source(t)
	r := build(t, s)
	dir := filepath.Join(t.TempDir(), "releases")
	unpack := func() error {
		f, err := os.Open(r.Tar)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		return release.Unpack(f, r.Hash, dir)
	}
	for range 2 { // the second time nothing is to be done
		if err := unpack(); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{
		".": "drwxr-xr-x", "app": "drwxr-xr-x", "app/run.sh": "-rwxr-xr-x #!/bin/sh\n", "app/.hidden": "-rw-r--r-- kept",
		"app/sub": "drwxr-xr-x", "app/sub/data": "-rw-r--r-- data", "app/link": "Lrwxrwxrwx sub/data",
		"static": "drwxr-xr-x", "static/index.html": "-rw-r--r-- <h1>",
		"static/.well-known": "drwxr-xr-x", "static/.well-known/x": "-rw-r--r-- ok",
	}
	if diff := cmp.Diff(want, tree(t, release.Path(dir, r.Hash))); diff != "" {
		t.Errorf("unpacked (-want +got):\n%s", diff)
	}
	if !release.Have(dir, r.Hash) {
		t.Error("Have: got false after Unpack")
	}
	if err := release.Prune(dir, "other"); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, dir); len(got) != 1 {
		t.Errorf("after Prune: got %v, want an empty folder", got)
	}
}

func TestBuildIsDeterministic(t *testing.T) {
	s := source(t)
	first := build(t, s)
	old := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := os.Chtimes(filepath.Join(s.Dir, "static/index.html"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(s.Dir, "static/index.html"), 0o666); err != nil {
		t.Fatal(err)
	}
	if again := build(t, s); again.Hash != first.Hash {
		t.Errorf("hash changed with times and modes: %s, %s", first.Hash, again.Hash)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "static/index.html"), []byte("<h2>"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed := build(t, s); changed.Hash == first.Hash {
		t.Error("hash did not change with the content")
	}
}

func TestBuildCommand(t *testing.T) {
	tests := []struct {
		name, build, want string // want: part of the error's text; empty: none
	}{
		{name: "good", build: `cp run.sh "$OUT/run"; echo done`},
		{name: "fails", build: `echo because >&2; exit 3`, want: "exit status 3\nbecause"},
		{name: "makes nothing", build: `true`, want: "put nothing into $OUT"},
		{name: "link outside", build: `ln -s /etc/passwd "$OUT/x"`, want: "outside its folder"},
		{name: "pipe", build: `mkfifo "$OUT/x"`, want: "neither a file, a folder nor a link"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := source(t)
			s.App.Build = tt.build
			t.Setenv("TMPDIR", t.TempDir())
			var progress bytes.Buffer
			_, err := release.Build(t.Context(), s, &progress)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
			if tt.want == "" && !strings.Contains(progress.String(), "done\n") {
				t.Errorf("the build's output is missing: %q", progress.String())
			}
			left := tree(t, os.Getenv("TMPDIR"))
			if err != nil && len(left) != 1 {
				t.Errorf("a failed build left %v", left)
			}
		})
	}
}

// TestBuildEnds ends a build whose child would hold its output open for long.
func TestBuildEnds(t *testing.T) {
	s := source(t)
	s.App.Build = "sleep 600 & echo ready; wait"
	ctx, cancel := context.WithCancel(t.Context())
	begun := time.Now()
	_, err := release.Build(ctx, s, writerFunc(func(p []byte) {
		if strings.Contains(string(p), "ready") {
			cancel()
		}
	}))
	if !errors.Is(err, context.Canceled) || time.Since(begun) > 30*time.Second {
		t.Errorf("got %v after %s, want context.Canceled at once", err, time.Since(begun))
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

// made returns a tar of the given headers, each with as many bytes as it says, and its hash.
func made(t *testing.T, headers ...tar.Header) ([]byte, string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	return b.Bytes(), hex.EncodeToString(sum[:])
}

func TestUnpackRefuses(t *testing.T) {
	app := tar.Header{Name: "app/", Typeflag: tar.TypeDir}
	dir := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir} }
	file := func(name string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeReg, Size: 1, Mode: 0o6777}
	}
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	tests := map[string][]tar.Header{
		"absolute path":           {file("/etc/x")},
		"parent":                  {app, file("app/../../x")},
		"parent within":           {app, file("app/../app/x")},
		"other top folder":        {dir("etc/"), file("etc/x")},
		"file as top folder":      {link("app", "/etc")},
		"file beside":             {file("x")},
		"empty name":              {dir("/")},
		"absolute link":           {app, link("app/l", "/etc")},
		"link outside":            {app, link("app/l", "../x")},
		"link to the other top":   {app, link("app/l", "../static/x")},
		"link that turns back":    {app, dir("app/a/"), link("app/l", "a/../../..")},
		"file behind a link":      {app, dir("app/s/"), link("app/l", "s"), file("app/l/x")},
		"link behind a link":      {app, dir("app/s/"), dir("app/d/"), dir("app/d/e/"), link("app/d/e/l", "../../s"), link("app/d/e/l/y", "../../../q")},
		"hard link":               {app, {Name: "app/h", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}},
		"device":                  {app, {Name: "app/d", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
		"pipe":                    {app, {Name: "app/p", Typeflag: tar.TypeFifo}},
		"twice":                   {app, file("app/x"), file("app/x")},
		"file without its folder": {file("app/x")},
	}
	for name, headers := range tests {
		t.Run(name, func(t *testing.T) {
			data, hash := made(t, headers...)
			out := t.TempDir()
			err := release.Unpack(bytes.NewReader(data), hash, out)
			if err == nil {
				t.Error("got no error")
			}
			if left := tree(t, out); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestUnpackRefusesOtherBytes(t *testing.T) {
	data, hash := made(t, tar.Header{Name: "app/", Typeflag: tar.TypeDir})
	other := strings.Repeat("0", 64)
	tests := []struct {
		name, hash string
		data       []byte
	}{
		{"other hash", other, data},
		{"cut off", hash, data[:700]},
		{"path as hash", "../../etc", data},
		{"upper case hash", strings.ToUpper(hash), data},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := t.TempDir()
			err := release.Unpack(bytes.NewReader(tt.data), tt.hash, out)
			if !errors.Is(err, release.ErrCorrupt) {
				t.Errorf("got %v, want ErrCorrupt", err)
			}
			if left := tree(t, out); len(left) != 1 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestUnpackSizeBomb unpacks a sparse entry that claims far more than it brings.
func TestUnpackSizeBomb(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Name: "app/", Typeflag: tar.TypeDir},
		{Name: "app/bomb", Typeflag: tar.TypeReg, Size: release.MaxBytes + 1},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha256.Sum256(b.Bytes())
	out := t.TempDir()
	err := release.Unpack(&b, hex.EncodeToString(sum[:]), out)
	if !errors.Is(err, release.ErrCorrupt) {
		t.Errorf("got %v, want ErrCorrupt", err)
	}
}

// FuzzUnpack makes sure that no tar writes beside its release.
func FuzzUnpack(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "app/", Typeflag: tar.TypeDir})
	_ = w.WriteHeader(&tar.Header{Name: "app/l", Typeflag: tar.TypeSymlink, Linkname: "x"})
	_ = w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		sum := sha256.Sum256(data)
		hash := hex.EncodeToString(sum[:])
		outer := t.TempDir()
		err := release.Unpack(bytes.NewReader(data), hash, filepath.Join(outer, "releases"))
		for name, text := range tree(t, outer) {
			first, _, _ := strings.Cut(name, "/")
			if first != "." && first != "releases" {
				t.Errorf("wrote %s (%s)", name, text)
			}
			if err != nil && strings.Contains(name, hash) {
				t.Errorf("left %s after %v", name, err)
			}
		}
	})
}
