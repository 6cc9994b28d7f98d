package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
)

// shape is what a proxy is set up for in a scene.
type shape struct {
	TLS       bool // to the visitors
	HTTP2     bool
	TLSTarget bool
	Static    bool // files rather than a target
}

// peer is a program that is measured.
type peer struct {
	name    string
	version []string // command that prints it
	config  string   // template of its settings, among peers; empty: it has flags
	command func(s settings, config string) []string
	noFiles bool // it serves no files
}

// settings fill a peer's template.
type settings struct {
	shape
	Name                     string
	Dir                      string
	Port, Target             int
	Certificate, Key, Bundle string
	Files                    string // folder to serve
	Profile                  string // file for trivet's profile
}

//go:embed peers
var templates embed.FS

// Names of the peers that figures are compared with.
const (
	ours    = "trivet"
	netHTTP = "net/http"
)

// peers in the order of the table.
var peers = []peer{
	{name: ours, command: own("", roleEngine)},
	{name: "nginx", version: []string{"nginx", "-v"}, config: "nginx.conf", command: func(_ settings, config string) []string {
		return []string{"nginx", "-c", config}
	}},
	{name: "haproxy", version: []string{"haproxy", "-v"}, config: "haproxy.cfg", noFiles: true, command: func(_ settings, config string) []string {
		return []string{"haproxy", "-db", "-f", config}
	}},
	{name: "caddy", version: []string{"caddy", "version"}, config: "Caddyfile", command: func(_ settings, config string) []string {
		return []string{"caddy", "run", "--adapter", "caddyfile", "--config", config}
	}},
	{name: netHTTP, command: own("", roleNetHTTP)},
}

// own is the command of a peer that is this program, or another build of it at
// path, in a role of its own.
func own(path, role string) func(settings, string) []string {
	return func(s settings, _ string) []string {
		if path == "" {
			path, _ = os.Executable() // it was found at the start of this very process, too
		}
		args := []string{path, role, "-listen", address(s.Port), "-target", address(s.Target)}
		if s.TLS {
			args = append(args, "-certificate", s.Certificate, "-key", s.Key)
		}
		if s.HTTP2 {
			args = append(args, "-http2")
		}
		if s.TLSTarget {
			args = append(args, "-target-tls")
		}
		if s.Files != "" {
			args = append(args, "-files", s.Files)
		}
		if s.Name == ours && s.Profile != "" {
			args = append(args, "-profile", s.Profile)
		}
		return args
	}
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// running is a peer that runs.
type running struct {
	peer   peer
	port   int
	cmd    *exec.Cmd
	output *tail
	ended  chan struct{}
}

// proxyCore is where the proxies run; this program has the other.
const proxyCore = "0"

// start runs a peer and returns once it accepts connections.
func (b *bench) start(ctx context.Context, p peer, s settings) (*running, error) {
	config := ""
	if p.config != "" {
		var err error
		if config, err = s.write(p.config); err != nil {
			return nil, err
		}
	}
	args := append([]string{"-c", proxyCore}, p.command(s, config)...)
	r := &running{peer: p, port: s.Port, output: &tail{}, ended: make(chan struct{})}
	r.cmd = exec.Command("taskset", args...)
	r.cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "XDG_DATA_HOME="+s.Dir, "XDG_CONFIG_HOME="+s.Dir, "HOME="+s.Dir)
	r.cmd.Stdout, r.cmd.Stderr = r.output, r.output
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() { defer close(r.ended); _ = r.cmd.Wait() }()
	if err := r.await(ctx); err != nil {
		r.stop()
		return nil, fmt.Errorf("start %s: %w%s", p.name, err, r.said())
	}
	return r, nil
}

// write makes the settings of a template, and returns their path.
func (s settings) write(name string) (string, error) {
	t, err := template.ParseFS(templates, "peers/"+name)
	if err != nil {
		return "", fmt.Errorf("read the template of %s: %w", name, err)
	}
	var text bytes.Buffer
	if err := t.Execute(&text, s); err != nil {
		return "", fmt.Errorf("fill the template of %s: %w", name, err)
	}
	path := filepath.Join(s.Dir, name)
	return path, os.WriteFile(path, text.Bytes(), 0o600)
}

// await waits until the peer listens.
func (r *running) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if fd, err := dial(r.port); err == nil {
			return unix.Close(fd)
		}
		select {
		case <-r.ended:
			return errors.New("it has ended")
		case <-ctx.Done():
			return errors.New("it does not listen")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends a peer with all its processes.
func (r *running) stop() {
	_ = syscall.Kill(r.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(time.Second): // it waits for connections that are open
	}
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	<-r.ended
}

// said is what the peer has written, for an error.
func (r *running) said() string {
	if text := r.output.String(); text != "" {
		return "\n" + text
	}
	return ""
}

// tail keeps the first of what a process writes.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p[:min(len(p), 4096-len(t.text))]...)
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

var versionNumber = regexp.MustCompile(`\d+\.\d+\.\d+`)

// versions of all peers that are measured.
func versions(ctx context.Context, all []peer) (string, error) {
	var out []string
	for _, p := range all {
		if p.version == nil {
			continue
		}
		text, err := exec.CommandContext(ctx, p.version[0], p.version[1:]...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("ask %s for its version: %w: run `make bench-balancer`, which installs it", p.name, err)
		}
		out = append(out, p.name+" "+versionNumber.FindString(string(text)))
	}
	return strings.Join(out, ", "), nil
}
