package lab

import (
	"errors"
	"os"
	"testing"
)

// What removes a lab can be repeated.
func TestRemoveFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a folder for root only")
	}
	l := &Lab{Name: "foldertest", Servers: []string{"s1"}}
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(l.dir()) })
	if err := os.MkdirAll(l.dir("zz", Lib), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.removeFolder(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(l.dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
	if err := l.removeFolder(); err != nil {
		t.Errorf("once more: %v", err)
	}
}
