package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"trivet/internal/binary"
)

// otherBuild is the test's program under another name of its content.
func (b *bench) otherBuild() string {
	b.Helper()
	data, err := os.ReadFile(b.exe)
	must(b.T, err)
	path := filepath.Join(b.TempDir(), "trivet")
	must(b.T, os.WriteFile(path, append(data, "another build"...), 0o755))
	return path
}

// runs is the build of the server's program.
func (b *bench) runs(server, pid string) string {
	b.Helper()
	build, err := binary.Build(fmt.Sprintf("/proc/%d/exe", b.outside(server, pid)))
	must(b.T, err)
	return build
}

// TestRestart: a server has a binary of its own, which is replaced and put back while all else runs.
func TestRestart(t *testing.T) {
	b := newBench(t)
	must(t, b.lab.setProgram()) // its own binary, as "node"
	must(t, b.lab.Start(t.Context(), "s1", b.exe))
	_, pid := b.up("s1")
	first, orphan := b.runs("s1", pid), b.orphan("s1")
	build, before, err := b.lab.Install(t.Context(), "s1", b.otherBuild())
	must(t, err)
	if before != first || build == first {
		t.Errorf("Install = %s after %s, want another after %s", build, before, first)
	}
	if got := b.runs("s1", pid); got != first {
		t.Errorf("before Restart %s runs, want %s", got, first)
	}
	for _, want := range []string{build, first} {
		must(t, b.lab.Use(t.Context(), "s1", want))
		must(t, b.lab.Restart("s1"))
		b.await("another process of the program", func() bool {
			_, now := b.up("s1")
			changed := now != pid
			pid = now
			return changed
		})
		if got := b.runs("s1", pid); got != want {
			t.Errorf("after Restart %s runs, want %s", got, want)
		}
	}
	if got := b.orphan("s1"); got != orphan || b.outside("s1", orphan) == 0 {
		t.Errorf("what the program had left is %s, want that %s still runs", got, orphan)
	}
	must(t, b.lab.Use(t.Context(), "s1", build))
	must(t, b.lab.Kill(t.Context(), "s1"))
	must(t, b.lab.Start(t.Context(), "s1", b.exe))
	_, pid = b.up("s1")
	if got := b.runs("s1", pid); got != build {
		t.Errorf("after power on %s runs, want the server's own, %s", got, build)
	}
	if err := b.lab.Restart("s2"); err == nil {
		t.Error("Restart of a server that is off = nil, want an error")
	}
}
