package node

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNewest(t *testing.T) {
	dir := t.TempDir()
	begun := time.Now()
	for i, name := range []string{"c", "a", "d", "b"} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, begun, begun.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"b", "d", "a"}, newest(dir, 3)); diff != "" {
		t.Error(diff)
	}
	if got := newest(filepath.Join(dir, "none"), 3); got != nil {
		t.Errorf("newest of no folder = %v", got)
	}
}

func TestInUse(t *testing.T) {
	proc, dir := t.TempDir(), "/var/lib/x/releases"
	for path, to := range map[string]string{
		"7/cwd": dir + "/aa/app", "7/exe": "/usr/bin/env",
		"8/cwd": "/", "8/exe": dir + "/bb/app/foobar",
		"9/cwd": "/var/lib/x/releases-other/cc", "self/cwd": dir + "/dd",
	} {
		if err := os.MkdirAll(filepath.Join(proc, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(proc, path)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"aa", "bb"}, inUse(proc, dir)); diff != "" {
		t.Error(diff)
	}
}
