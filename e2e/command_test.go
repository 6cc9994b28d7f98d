package e2e

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestUpTwiceChangesNothing(t *testing.T) {
	ensureUp(t)
	before := processes(t, "s1", "mariadbd")
	out, err := ring.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustContain(t, out, "is up after")
	if now := processes(t, "s1", "mariadbd"); len(now) != 1 || now[0] != before[0] {
		t.Errorf("mariadbd of s1 was %v and is %v", before, now)
	}
}

func TestLogsAndStatus(t *testing.T) {
	ensureUp(t)
	mustContain(t, must(t, "logs", "s2", "database", "-n", "500"), "s2 database | ")
	mustContain(t, must(t, "logs", "node"), "s3 node | ")
	mustContain(t, must(t, "status"), "all parts are healthy")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	follow := ring.Command(ctx, "logs", "-f", "s1", "balancer")
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	path := "/follow-this-line"
	c := visitor(t, ring.Address(1))
	lines := make(chan string, 1)
	go func() {
		buf := make([]byte, 1<<16)
		text := ""
		for {
			n, err := out.Read(buf)
			text += string(buf[:n])
			if strings.Contains(text, path) || err != nil {
				lines <- text
				return
			}
		}
	}()
	eventually(t, 20*time.Second, "logs -f shows a new request", func() bool {
		res, err := c.Get("https://" + Domain + path)
		if err == nil {
			_ = res.Body.Close()
		}
		select {
		case text := <-lines:
			return strings.Contains(text, path)
		default:
			return false
		}
	})
	cancel()
	_, _ = io.Copy(io.Discard, out)
	_ = follow.Wait()
}

// A frozen server keeps nobody waiting: what asks all servers leaves it out, and it follows when it is back.
func TestCommandsWithFrozenServer(t *testing.T) {
	ensureUp(t)
	must(t, "lab", "stop", "s1")
	changed := changedSite(t, 3)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"plan", "--site", changed}, "s2 s3"},
		{[]string{"apply", "--site", changed}, "s1 is frozen: it takes revision"},
		{[]string{"signin"}, "/signin?token="},
		{[]string{"logs", "node", "-n", "1"}, "s3 node | "},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out, err := ring.Run(ctx, c.args...)
		cancel()
		if err != nil {
			t.Errorf("%v: %v", c.args, err)
		}
		mustContain(t, out, c.want)
	}
	must(t, "lab", "start", "s1")
	must(t, "apply", "--site", ring.Site)
}

// A site of another name is another site: its data would not be those of this one.
func TestRenamedSiteIsRefused(t *testing.T) {
	ensureUp(t)
	data, err := os.ReadFile(changedSite(t, 3))
	if err != nil {
		t.Fatal(err)
	}
	other := changedSite(t, 3)
	if err := os.WriteFile(other, []byte(strings.Replace(string(data), "name: foobar\n", "name: foobaz\n", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"plan", "apply"} {
		refused(t, ring.Command(t.Context(), command, "--site", other), `the file declares "foobaz"`)
	}
	refused(t, ring.Command(t.Context(), "up", "--site", other), `the file declares "foobaz"`)
}

// What cannot work ends in a clear word, with a status that is not 0, and leaves nothing.
func TestRefusals(t *testing.T) {
	other := New("refused", "10.85.0")
	t.Run("no root", func(t *testing.T) {
		exe := filepath.Join(t.TempDir(), "trivet")
		copyFile(t, other.Binary(), exe)
		for dir := filepath.Dir(exe); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), exe, "up")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		refused(t, cmd, "needs root")
	})
	t.Run("no mariadb", func(t *testing.T) {
		cmd := other.Command(t.Context(), "up", "--subnet", other.Subnet, "--site", other.Site)
		cmd.Env = []string{"PATH=/nowhere"}
		refused(t, cmd, "lacks mariadb-server")
	})
	t.Run("range in use", func(t *testing.T) {
		ensureUp(t)
		refused(t, other.Command(t.Context(), "up", "--subnet", ring.Subnet, "--site", other.Site), "in use")
	})
	t.Run("disk full", func(t *testing.T) {
		small := t.TempDir()
		// A mount namespace of its own, in which the disk of the labs is small.
		script := "mount -t tmpfs -o size=64m tmpfs /var/lib/trivet && exec " + other.Binary() + " up --lab refused --subnet " + other.Subnet + " --site " + other.Site
		if err := os.MkdirAll("/var/lib/trivet", 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", script)
		cmd.Dir = small
		refused(t, cmd, "MiB left")
	})
	t.Run("wrong site file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "site.yaml")
		if err := os.WriteFile(file, []byte("name: x\nserver: []\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, other.Command(t.Context(), "up", "--subnet", other.Subnet, "--site", file), "site.yaml:2: server")
	})
	t.Run("no lab", func(t *testing.T) {
		for _, args := range [][]string{{"status"}, {"logs"}, {"plan"}, {"apply"}, {"lab", "kill", "s1"}, {"signin"}} {
			refused(t, other.Command(t.Context(), args...), "no lab")
		}
	})
	nothingLeft(t, other)
}

func refused(t *testing.T, cmd *exec.Cmd, word string) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v ended with %v, want exit status 1", cmd.Args, err)
	}
	mustContain(t, string(out), word)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// Ctrl-C in the middle of up leaves nothing, at several moments of it.
func TestInterruptedUp(t *testing.T) {
	for _, word := range []string{"building", "starting", "healthy"} {
		t.Run(word, func(t *testing.T) {
			other := New("broken", "10.86.0")
			cmd := other.Command(t.Context(), "up", "--subnet", other.Subnet, "--site", other.Site)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			text, buf := "", make([]byte, 1<<16)
			for !strings.Contains(text, word) {
				n, err := out.Read(buf)
				if err != nil {
					t.Fatalf("up ended before it said %q: %s", word, text)
				}
				text += string(buf[:n])
			}
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, out)
			if err := cmd.Wait(); err == nil {
				t.Error("an interrupted up ended with status 0")
			}
			nothingLeft(t, other)
		})
	}
}

// The last case: down keeps the data if asked, removes everything otherwise, and can be repeated.
func TestZDown(t *testing.T) {
	ensureUp(t)
	text := "kept over a down"
	post(t, visitor(t, ring.Floating()), text+time.Now().String())
	mustContain(t, must(t, "down", "--keep-data"), "kept")
	ensureUp(t)
	if _, body := get(t, visitor(t, ring.Floating()), "/"); !strings.Contains(body, text) {
		t.Error("down --keep-data lost a message")
	}
	must(t, "down")
	nothingLeft(t, ring)
	mustContain(t, must(t, "down"), "nothing to remove")
}

// nothingLeft asserts that no process, namespace, link, mount, file or user of a lab is there.
func nothingLeft(t *testing.T, l *Lab) {
	t.Helper()
	out, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "trivet-"+l.Name) {
		t.Errorf("namespaces are left: %s", out)
	}
	if _, err := os.Stat(filepath.Join("/var/lib/trivet/labs", l.Name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files of the lab %s are left: %v", l.Name, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), "labs/"+l.Name+"/") || strings.Contains(string(mounts), "trivet-"+l.Name) {
		t.Errorf("mounts of the lab %s are left", l.Name)
	}
	links, err := exec.Command("ip", "-4", "addr").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(links), l.Prefix+".") {
		t.Errorf("the lab's bridge is left: %s", links)
	}
	running, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range running {
		cmd, err := os.ReadFile(p)
		if err == nil && strings.Contains(string(cmd), "labs/"+l.Name+"\x00") {
			t.Errorf("a process is left: %s", strings.ReplaceAll(string(cmd), "\x00", " "))
		}
	}
}
