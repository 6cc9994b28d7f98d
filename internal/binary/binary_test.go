package binary

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func add(t *testing.T, dir, content string, peers ...string) string {
	t.Helper()
	from := filepath.Join(t.TempDir(), "built")
	write(t, from, content)
	b, err := Add(dir, from, peers...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAddAndUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin")
	one, two := add(t, dir, "one"), add(t, dir, "two")
	if again := add(t, dir, "one"); again != one || one == two {
		t.Errorf("builds = %s, %s, %s, want the first and the third to be the same", one, two, again)
	}
	if got, err := Current(dir); got != "" || err != nil {
		t.Errorf("Current = %q, %v, want none", got, err)
	}
	for _, b := range []string{one, two, one} {
		if err := Use(dir, b); err != nil {
			t.Fatal(err)
		}
		if got, err := Current(dir); got != b || err != nil {
			t.Errorf("Current = %q, %v, want %s", got, err, b)
		}
		if got, err := Build(filepath.Join(dir, InForce)); got != b || err != nil {
			t.Errorf("the link leads to %q, %v, want %s", got, err, b)
		}
	}
	if err := Use(dir, "0123456789abcdef"); err == nil {
		t.Error("Use of a build that is not there = nil, want an error")
	}
	info, err := os.Stat(filepath.Join(dir, InForce))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o755 {
		t.Errorf("mode = %o, want 755", got)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*", ".*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A file that has another content than its name says, cut short by a crash, is replaced.
func TestAddRepairs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin")
	b := add(t, dir, "one")
	write(t, file(dir, b), "o")
	if add(t, dir, "one"); mustBuild(t, file(dir, b)) != b {
		t.Error("the file is not what its name says")
	}
}

func mustBuild(t *testing.T, path string) string {
	t.Helper()
	b, err := Build(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPeersShare(t *testing.T) {
	root := t.TempDir()
	a, b := filepath.Join(root, "a"), filepath.Join(root, "b")
	one := add(t, a, "one")
	add(t, b, "one", a)
	x, errX := os.Stat(file(a, one))
	y, errY := os.Stat(file(b, one))
	if errX != nil || errY != nil || !os.SameFile(x, y) {
		t.Errorf("%v, %v: not the same file", errX, errY)
	}
}

func TestPrune(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin")
	var builds []string
	for i := range 6 {
		b := add(t, dir, fmt.Sprint(i))
		at := time.Now().Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(file(dir, b), at, at); err != nil {
			t.Fatal(err)
		}
		builds = append(builds, b)
	}
	if err := Use(dir, builds[0]); err != nil {
		t.Fatal(err)
	}
	if err := Prune(dir, builds[1]); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, false, false, false, true} {
		if _, err := os.Stat(file(dir, builds[i])); (err == nil) != want {
			t.Errorf("build %d is there: %t, want %t", i, err == nil, want)
		}
	}
}
