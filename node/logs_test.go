package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// appendTo writes to a log as its process does.
func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func last(t *testing.T, l *tail, lines int) string {
	t.Helper()
	var b bytes.Buffer
	if err := l.last(&b, lines); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func more(t *testing.T, l *tail) string {
	t.Helper()
	var b bytes.Buffer
	if err := l.more(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTailLast(t *testing.T) {
	long := strings.Repeat("x", 1000) + "\n"
	tests := []struct {
		name, content, only string
		lines               int
		want                string
	}{
		{"no file", "", "", 5, ""},
		{"fewer than asked", "a\nb\n", "", 5, "a\nb\n"},
		{"as many as asked", "a\nb\nc\n", "", 2, "b\nc\n"},
		{"none asked", "a\nb\n", "", 0, ""},
		{"one part's", "part=web 1\npart=app 2\npart=web 3\n", "part=web", 5, "part=web 1\npart=web 3\n"},
		{"one part's last", "part=web 1\npart=web 3\npart=app 2\n", "part=web", 1, "part=web 3\n"},
		{"an unfinished line", "a\nb", "", 5, "a\n"},
		{"only an unfinished line", "b", "", 5, ""},
		{"a large file", strings.Repeat(long, 2000) + "end\n", "", 2, long + "end\n"},
		{"more than is looked at", strings.Repeat(long, 2000), "", 5000, strings.Repeat(long, tailWindow/len(long))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "web.log")
			if tt.content != "" {
				appendTo(t, path, tt.content)
			}
			if diff := cmp.Diff(tt.want, last(t, &tail{path: path, only: tt.only}, tt.lines)); diff != "" {
				t.Errorf("last (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTailFollows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.log")
	l := &tail{path: path, only: "part=web"}
	steps := []struct{ name, add, want string }{
		{"not there yet", "", ""},
		{"first line", "part=web 1\n", "part=web 1\n"},
		{"nothing new", "", ""},
		{"another part's", "part=app 2\n", ""},
		{"unfinished", "part=web 3", ""},
		{"finished", " end\npart=web 4\n", "part=web 3 end\npart=web 4\n"},
	}
	for _, s := range steps {
		if s.add != "" {
			appendTo(t, path, s.add)
		}
		if got := more(t, l); got != s.want {
			t.Errorf("%s: more = %q, want %q", s.name, got, s.want)
		}
	}
}

// A line that was half written when following began comes once, and whole.
func TestTailBeginsInTheMiddleOfALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.log")
	l := &tail{path: path}
	appendTo(t, path, "one\ntw")
	got := last(t, l, 10)
	appendTo(t, path, "o\n")
	if got += more(t, l); got != "one\ntwo\n" {
		t.Errorf("followed %q, want one and two", got)
	}
}

func TestRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.log")
	appendTo(t, path, "small\n")
	if err := rotate(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".1"); err == nil {
		t.Error("a small file was rotated")
	}
	// The writer keeps its descriptor over the rotation.
	writer, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = writer.Close() }()
	big := strings.Repeat(strings.Repeat("x", 1023)+"\n", logLimit>>10)
	if _, err := writer.WriteString(big); err != nil {
		t.Fatal(err)
	}
	l := &tail{path: path}
	if got := last(t, l, 1); len(got) != 1024 {
		t.Fatalf("last line has %d bytes, want 1024", len(got))
	}
	if err := rotate(path); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.WriteString("after\n"); err != nil {
		t.Fatal(err)
	}
	if got := more(t, l); got != "after\n" {
		t.Errorf("after rotation: more = %q, want after", got)
	}
	former, err := os.ReadFile(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	if string(former) != "small\n"+big {
		t.Errorf("former log has %d bytes, want %d", len(former), len("small\n"+big))
	}
	if info, err := os.Stat(path); err != nil || info.Size() != int64(len("after\n")) {
		t.Errorf("log has %d bytes, %v, want only what came after", info.Size(), err)
	}
}

func TestRotateWithoutFile(t *testing.T) {
	if err := rotate(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Errorf("rotate = %v, want that there is no file", err)
	}
}

// On a full disk the log is cut without a copy: /dev/full has no room for one (full(4)).
func TestRotateOnFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, logLimit); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := rotate(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("log has %d bytes, %v, want none", info.Size(), err)
	}
}
