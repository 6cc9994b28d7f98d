package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// databaseDir is where a server sees its database's files.
const databaseDir = "/var/lib/trivet/database"

// One server's disk gets full at a stroke. Its database ends, and says why;
// the two others go on: no failed GET, no acknowledged post lost. The writer's
// gives the others a moment to end first, so posts wait longer for it.
func TestDiskFull(t *testing.T) {
	for _, writer := range []bool{false, true} {
		t.Run(fmt.Sprintf("writer=%v", writer), func(t *testing.T) {
			ensureUp(t)
			s, err := ring.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			server := "s1" // the first in line to become the writer
			if !writer {
				server = Servers[slices.IndexFunc(Servers, func(n string) bool { return n != s.AddressHolder && n != s.Writer })]
			}
			dir := smallDisk(t, server)
			eventually(t, 40*time.Second, "the database has got a copy onto the small disk", healthy(t))
			if writer {
				makeWriter(t, server)
			}
			diskFills(t, server, dir)
		})
	}
}

func healthy(t *testing.T) func() bool {
	return func() bool {
		s, err := ring.Status(t.Context())
		return err == nil && s.Healthy
	}
}

// makeWriter ends the database of the writer, until the first in line is it.
func makeWriter(t *testing.T, server string) {
	t.Helper()
	eventually(t, 60*time.Second, server+" is the writer and all is healthy", func() bool {
		s, err := ring.Status(t.Context())
		if err != nil || !s.Healthy {
			return false
		}
		if s.Writer != server {
			kill(t, processes(t, s.Writer, "mariadbd")...)
		}
		return s.Writer == server
	})
}

// diskFills fills a server's disk under load, and empties it again.
func diskFills(t *testing.T, server, dir string) {
	t.Helper()
	var begun, resumed time.Time
	l := load(t, func(l *Load) {
		begun = time.Now()
		filler := fill(t, dir)
		eventually(t, 20*time.Second, "the status names the disk", func() bool {
			return strings.Contains(problem(t, server), "disk is full")
		})
		if out, err := ring.Run(t.Context(), "status"); err == nil || !strings.Contains(out, "disk is full") {
			t.Errorf("status: %v\n%s\nwant exit status 1 and the disk named", err, out)
		}
		n := acked(l)
		eventually(t, 10*time.Second, "posts are acknowledged", func() bool { return acked(l) > n+40 })
		resumed = time.Now()
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		eventually(t, 40*time.Second, "all is healthy again", healthy(t))
	})
	l.whole(t)
	gap := l.Gap(begun, resumed)
	t.Logf("longest gap between acknowledged posts: %.2f s", gap.Seconds())
	if gap > 8*time.Second {
		t.Errorf("posts resumed after %s, want at most 8 s", gap)
	}
}

// problem is what a server says of its database.
func problem(t *testing.T, server string) string {
	t.Helper()
	s, err := ring.Status(t.Context())
	if err != nil {
		return ""
	}
	for _, v := range s.Servers {
		for _, p := range v.Parts {
			if v.Server == server && p.Name == "database" {
				return p.Problem
			}
		}
	}
	return ""
}

// smallDisk puts a small, empty disk where a running server keeps its
// database, until the server is started anew, and returns its path on this machine.
func smallDisk(t *testing.T, server string) string {
	t.Helper()
	nodes, databases := processes(t, server, "trivet node"), processes(t, server, "mariadbd")
	if len(nodes) != 1 || len(databases) == 0 {
		t.Fatalf("%s runs node as %v and mariadbd as %v", server, nodes, databases)
	}
	t.Cleanup(func() {
		for _, verb := range []string{"kill", "start"} {
			if out, err := ring.Run(context.Background(), "lab", verb, server); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
	})
	// Node must not see the database end before the new disk is there.
	if err := syscall.Kill(nodes[0], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(nodes[0], syscall.SIGCONT) }()
	kill(t, databases...)
	out, err := exec.Command("nsenter", "-t", fmt.Sprint(nodes[0]), "-m", "mount", "-t", "tmpfs", "-o", "size=800m,mode=700,uid=mysql,gid=mysql", "tmpfs", databaseDir).CombinedOutput()
	if err != nil {
		t.Fatalf("mount a small disk: %v: %s", err, out)
	}
	return filepath.Join("/proc", fmt.Sprint(nodes[0]), "root", databaseDir)
}

// fill leaves no room on the disk of dir and returns the file that took it.
func fill(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for block := make([]byte, 1<<20); ; {
		if _, err := f.Write(block); err != nil {
			return name
		}
	}
}
