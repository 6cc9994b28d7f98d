package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// operator is the ring as one sees it who has another build.
func operator(program string) *Lab {
	l := *ring
	l.Program = program
	return &l
}

// anotherBuild is the binary that is tried, but for its name.
func anotherBuild(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(ring.Binary())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "trivet")
	if err := os.WriteFile(path, fmt.Appendf(data, "another build: %s at %d", t.Name(), time.Now().UnixNano()), 0o755); err != nil { // what follows an ELF file's sections is not looked at
		t.Fatal(err)
	}
	return path
}

// brokenBuild is one in which that word of the command line ends at once.
func brokenBuild(t *testing.T, word string) string {
	t.Helper()
	dir := t.TempDir()
	source, overlay, out := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "trivet")
	text := fmt.Sprintf("package cli\n\nimport \"os\"\n\nfunc init() {\n\tif len(os.Args) > 1 && os.Args[len(os.Args)-1] == %q && os.Args[1] != \"lab-init\" {\n\t\tprintln(\"this build is broken\")\n\t\tos.Exit(7)\n\t}\n}\n", word)
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(ring.Root, "cli", "broken.go"): source}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, data, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", out, ".")
	cmd.Dir, cmd.Env = ring.Root, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build a broken trivet: %v\n%s", err, text)
	}
	return out
}

// builds are those of all that runs, by "server process".
func builds(t *testing.T) map[string]string {
	t.Helper()
	s, err := ring.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, srv := range s.Servers {
		all[srv.Server+" node"] = srv.Build
		for name, w := range srv.Workers {
			all[srv.Server+" "+name] = w.Build
		}
	}
	return all
}

// acknowledged asserts that all but one post in twenty were. One that meets
// the end of a kept connection, or a server that is too slow on a busy machine,
// is not sent again: it may have been taken.
func (l *Load) acknowledged(t *testing.T) {
	t.Helper()
	if n := len(l.Lost); n > (n+len(l.Acked))/20 {
		t.Errorf("%d of %d posts were not acknowledged, the first: %s", n, n+len(l.Acked), l.Lost[0])
	}
}

// A build that does not work stops at the first server, which goes back to the one before.
func TestUpgradeIsRolledBack(t *testing.T) {
	for _, word := range []string{"web", "node"} {
		t.Run(word+" is broken", func(t *testing.T) {
			ensureUp(t)
			was := builds(t)
			o := operator(brokenBuild(t, word))
			l := load(t, func(*Load) {
				out, err := o.Run(t.Context(), "upgrade", "--timeout", "20s")
				if err == nil || !strings.Contains(out, "it was rolled back to build "+was["s2 node"]) {
					t.Errorf("upgrade = %v, want that it was rolled back", err)
				}
				t.Log(out)
			})
			l.whole(t)
			l.acknowledged(t)
			for what, build := range builds(t) {
				if build != was[what] {
					t.Errorf("%s runs build %q, want %q as before", what, build, was[what])
				}
			}
			mustContain(t, must(t, "status"), "all parts are healthy")
		})
	}
}
