package sst

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestProgress(t *testing.T) {
	dir := t.TempDir()
	if _, under := ReadProgress(dir); under {
		t.Error("a copy is under way where there is none")
	}
	p := &progress{r: bytes.NewReader(make([]byte, 1000)), path: filepath.Join(dir, ProgressFile), Progress: Progress{Total: 4000}}
	if err := p.write(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, p); n != 1000 || err != nil {
		t.Fatalf("copied %d, %v", n, err)
	}
	if err := p.write(); err != nil {
		t.Fatal(err)
	}
	got, under := ReadProgress(dir)
	if want := (Progress{Bytes: 1000, Total: 4000}); got != want || !under {
		t.Errorf("got %+v, %v, want %+v", got, under, want)
	}
	if percent, known := got.Percent(); percent != 25 || !known {
		t.Errorf("got %d %%, %v, want 25", percent, known)
	}
	if percent, _ := (Progress{Bytes: 5, Total: 4}).Percent(); percent != 99 {
		t.Errorf("more than was expected is %d %%, want 99", percent)
	}
	// A former version left the file empty.
	if err := os.WriteFile(filepath.Join(dir, ProgressFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, under := ReadProgress(dir); !under || got != (Progress{}) {
		t.Errorf("empty file: got %+v, %v, want a copy of which nothing is known", got, under)
	}
}

func TestSizeOf(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "foo"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"ibdata1": 10, "foo/t.ibd": 30, "galera.cache": 1000, "bin.000001": 1000, "ib_logfile0": 1000} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := sizeOf(dir); got != 40 {
		t.Errorf("got %d, want 40", got)
	}
}
