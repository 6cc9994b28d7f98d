package cli

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"trivet/internal/process"
)

var update = flag.Bool("update", false, "write the golden parts of testdata anew")

// The scripts in testdata run the test binary as `trivet`.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"trivet": func() { os.Exit(Main(os.Args, os.Stdin, os.Stdout, os.Stderr)) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, errors.New("unknown condition")
			}
			return os.Geteuid() == 0, nil
		},
	})
}

// trivet runs the command line in this process.
func trivet(args ...string) (status int, out, errOut string) {
	var o, e bytes.Buffer
	status = Main(append([]string{"trivet"}, args...), strings.NewReader(""), &o, &e)
	return status, o.String(), e.String()
}

// leaves are the commands that do something, those of the families included.
func leaves() []command {
	var cs []command
	for _, c := range commands() {
		if c.family != nil {
			cs = append(cs, c.family()...)
			continue
		}
		cs = append(cs, c)
	}
	return cs
}

func TestFamilies(t *testing.T) {
	for _, c := range commands() {
		if c.family == nil {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			for _, word := range []string{"", "--help", "help"} {
				status, out, errOut := trivet(append([]string{c.name}, strings.Fields(word)...)...)
				if status != 0 || errOut != "" {
					t.Errorf("%q: status %d, %q on stderr, want 0 and nothing", word, status, errOut)
				}
				for _, member := range c.family() {
					if !strings.HasPrefix(member.name, c.name+" ") || !strings.Contains(out, "  "+member.name+" ") {
						t.Errorf("%q does not list %q:\n%s", word, member.name, out)
					}
				}
			}
			status, _, errOut := trivet(c.name, "nope")
			if want := "there is no command \"" + c.name + " nope\"; `trivet " + c.name + " --help` lists them"; status != 2 || !strings.Contains(errOut, want) {
				t.Errorf("unknown word: status %d, %q, want 2 and %q", status, errOut, want)
			}
		})
	}
}

func TestEveryCommandHelps(t *testing.T) {
	for _, c := range leaves() {
		if c.raw {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			for _, flag := range []string{"--help", "-h"} {
				status, out, errOut := trivet(append(strings.Fields(c.name), flag)...)
				if status != 0 || errOut != "" {
					t.Errorf("%s: status %d, %q on stderr, want 0 and nothing", flag, status, errOut)
				}
				for _, want := range []string{c.summary, "usage: trivet " + c.name, "\nexample:\n  ", c.example[:5]} {
					if !strings.Contains(out, want) {
						t.Errorf("%s lacks %q:\n%s", flag, want, out)
					}
				}
			}
			status, out, errOut := trivet(append(strings.Fields(c.name), "--no-such-flag")...)
			if status != 2 || out != "" || !strings.Contains(errOut, "trivet "+c.name+" --help") {
				t.Errorf("unknown flag: status %d, %q, %q, want 2 and where help is", status, out, errOut)
			}
		})
	}
}

// An example that its own command does not understand would mislead. Only its flags are tried.
func TestExamplesParse(t *testing.T) {
	for _, c := range leaves() {
		name := strings.Fields(c.name)
		for line := range strings.Lines(c.example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
			line, _, _ = strings.Cut(line, ">")
			words := strings.Fields(line)
			if c.hidden {
				continue
			}
			if len(words) <= len(name) || words[0] != "trivet" || !slices.Equal(words[1:len(name)+1], name) {
				t.Errorf("%s: example %q does not show it", c.name, line)
				continue
			}
			fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
			fs.SetOutput(&bytes.Buffer{})
			c.flags(fs)
			if _, err := parse(fs, words[len(name)+1:]); err != nil {
				t.Errorf("%s: example %q: %v", c.name, line, err)
			}
		}
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		args, words []string
		json        bool
		lines       int
	}{
		{nil, nil, false, 10},
		{[]string{"a", "b"}, []string{"a", "b"}, false, 10},
		{[]string{"--json", "a"}, []string{"a"}, true, 10},
		{[]string{"a", "--json", "b", "--lines", "3"}, []string{"a", "b"}, true, 3},
		{[]string{"a", "--", "--json"}, []string{"a", "--json"}, false, 10},
		{[]string{"--", "--json"}, []string{"--json"}, false, 10},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			fs := flag.NewFlagSet("x", flag.ContinueOnError)
			json, lines := fs.Bool("json", false, ""), fs.Int("lines", 10, "")
			words, err := parse(fs, tt.args)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(words, tt.words) || *json != tt.json || *lines != tt.lines {
				t.Errorf("parse = %q, json %v, lines %d, want %q, %v, %d", words, *json, *lines, tt.words, tt.json, tt.lines)
			}
		})
	}
}

func TestNeedsRoot(t *testing.T) {
	commands := []string{"up", "down", "status", "logs", "plan", "apply", "lab kill s1", "signin", "drain s1", "undrain s1", "balancer status", "node"}
	program, who := unprivileged(t)
	for _, line := range commands {
		t.Run(line, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), program, strings.Fields(line)...)
			cmd.Dir, cmd.SysProcAttr = filepath.Dir(program), &syscall.SysProcAttr{Credential: who}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("end = %v, want exit status 1", err)
			}
			const want = "trivet: this needs root: namespaces, a bridge and firewall rules are made\nhint: run it with sudo, or as root\n"
			if string(out) != want {
				t.Errorf("output = %q, want %q", out, want)
			}
		})
	}
}

// unprivileged returns a trivet that another user may run, and that user; nil if this process is not root.
func unprivileged(t *testing.T) (string, *syscall.Credential) {
	t.Helper()
	// Not t.TempDir, which is closed to others.
	dir, err := os.MkdirTemp("", "trivet-cli-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "trivet")
	if err := os.WriteFile(program, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		return program, nil
	}
	who, err := process.Credential("daemon")
	if err != nil {
		t.Fatal(err)
	}
	return program, who
}
