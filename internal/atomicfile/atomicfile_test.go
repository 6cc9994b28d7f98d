package atomicfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWrite(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	tests := []struct {
		name string
		perm os.FileMode
		data string
	}{
		{"secret", 0o600, "key"},
		{"public", 0o644, "certificate"},
		{"empty", 0o640, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			for _, data := range []string{"before", tt.data} {
				if err := Write(path, []byte(data), tt.perm, -1, -1); err != nil {
					t.Fatal(err)
				}
			}
			check(t, path, tt.data)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != tt.perm {
				t.Errorf("mode = %o, want %o", got, tt.perm)
			}
		})
	}
}

// check looks at the content, and that nothing else is in the folder.
func check(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("content is %d bytes, want %q", len(got), want)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestWriteGivesToOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives a file to another user")
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, []byte("x"), 0o640, 1, 2); err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Uid != 1 || st.Gid != 2 {
		t.Errorf("owner = %d:%d, want 1:2", st.Uid, st.Gid)
	}
}

func TestReadersSeeOldOrNew(t *testing.T) {
	const size = 256 << 10
	path := filepath.Join(t.TempDir(), "file")
	contents := [][]byte{bytes.Repeat([]byte("a"), size), bytes.Repeat([]byte("b"), size/2)}
	if err := Write(path, contents[0], 0o600, -1, -1); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, err := os.ReadFile(path)
				if err != nil || !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
					t.Errorf("read %d bytes that nobody wrote, %v", len(got), err)
					return
				}
			}
		})
	}
	for i := range 100 {
		if err := Write(path, contents[i%2], 0o600, -1, -1); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

// Every name that appears in the folder is as closed as asked, from its first moment.
func TestModeIsNeverWider(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := t.TempDir()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var seen sync.Map
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				if info, err := e.Info(); err == nil {
					seen.Store(info.Mode().Perm(), e.Name())
				}
			}
		}
	})
	for range 200 {
		if err := Write(filepath.Join(dir, "key"), []byte("secret"), 0o600, -1, -1); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	seen.Range(func(mode, name any) bool {
		if mode.(os.FileMode)&^0o600 != 0 {
			t.Errorf("%s had mode %o, wider than 600", name, mode)
		}
		return true
	})
}

func TestFailureKeepsTheOld(t *testing.T) {
	t.Run("no folder", func(t *testing.T) {
		if err := Write(filepath.Join(t.TempDir(), "no", "file"), nil, 0o600, -1, -1); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Write = %v, want that there is no folder", err)
		}
	})
	t.Run("name is a folder", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := Write(path, []byte("new"), 0o600, -1, -1); err == nil {
			t.Error("Write = nil, want an error")
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("folder holds %v, want only file", entries)
		}
	})
	t.Run("disk full", diskFull)
}

func diskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs to mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "file")
	if err := Write(path, []byte("old"), 0o600, -1, -1); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, make([]byte, 1<<20), 0o600, -1, -1); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Write = %v, want no space", err)
	}
	check(t, path, "old")
}
