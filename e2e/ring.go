// Package e2e is the lab ring: it runs the built binary as its users do,
// breaks three servers on purpose, and looks at what visitors and operators
// see. Its test files hold the cases; this half, which the benchmark shares,
// is the lab, the visitor and the load.
package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// Lab is a lab that `trivet up` started, apart from any that its user runs.
type Lab struct {
	Name, Subnet string
	Prefix       string // first three numbers of the addresses, as "10.84.0"
	Site         string // path of the site file
	Root         string // of the repository
	Program      string // path of the trivet that is tried; empty: the repository's
}

// New describes a lab; nothing is started.
func New(name, prefix string) *Lab {
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Dir(filepath.Dir(file))
	return &Lab{Name: name, Prefix: prefix, Subnet: prefix + ".0/24", Root: root, Site: filepath.Join(root, "examples", "foobar", "site.yaml")}
}

// Servers are the lab's servers, in order.
var Servers = []string{"s1", "s2", "s3"}

// Domain of the example site.
const Domain = "www.foobar.com"

// Binary is the path of the trivet that is tried.
func (l *Lab) Binary() string {
	if l.Program != "" {
		return l.Program
	}
	return filepath.Join(l.Root, "trivet")
}

// Command prepares a trivet command about this lab.
func (l *Lab) Command(ctx context.Context, args ...string) *exec.Cmd {
	flags := len(args)
	if i := slices.Index(args, "--"); i >= 0 {
		flags = i // what follows is not trivet's
	}
	args = slices.Insert(slices.Clone(args), flags, "--lab", l.Name)
	cmd := exec.CommandContext(ctx, l.Binary(), args...)
	cmd.Dir = os.TempDir()
	return cmd
}

// Run runs a trivet command and returns all that it printed.
func (l *Lab) Run(ctx context.Context, args ...string) (string, error) {
	out, err := l.Command(ctx, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("trivet %v: %w\n%s", args, err, out)
	}
	return string(out), nil
}

// Up starts the lab.
func (l *Lab) Up(ctx context.Context) (string, error) {
	return l.Run(ctx, "up", "--subnet", l.Subnet, "--site", l.Site)
}

// Address of the i-th server, from 1.
func (l *Lab) Address(i int) string { return fmt.Sprintf("%s.%d", l.Prefix, 10+i) }

// Floating is the floating address.
func (l *Lab) Floating() string { return l.Prefix + ".10" }

// Dir is a server's folder on this machine: kind is lib, run or log.
func (l *Lab) Dir(server, kind string) string {
	return filepath.Join("/var/lib/trivet/labs", l.Name, server, kind)
}

// Namespace is the name of a server's network namespace.
func (l *Lab) Namespace(server string) string { return "trivet-" + l.Name + "-" + server }

// Status is what `trivet status --json` prints, as far as the ring reads it.
type Status struct {
	Healthy       bool   `json:"healthy"`
	Revision      int64  `json:"revision"`
	Quorum        bool   `json:"quorum"`
	AddressHolder string `json:"address_holder"`
	Writer        string `json:"writer"`
	Servers       []struct {
		Server string `json:"server"`
		Power  string `json:"power"`
		Error  string `json:"error"`
		Build  string `json:"build"`

		Workers map[string]struct {
			PID      int        `json:"pid"`
			Build    string     `json:"build"`
			Retiring []struct{} `json:"retiring"`
		} `json:"workers"`

		Parts []struct {
			Name    string `json:"name"`
			Healthy bool   `json:"healthy"`
			Problem string `json:"problem"`
		} `json:"parts"`
	} `json:"servers"`
}

// Status asks for the lab's status. That not all is healthy is no error.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	var s Status
	out, err := l.Command(ctx, "status", "--json").Output()
	if len(out) == 0 {
		return s, fmt.Errorf("trivet status: %w", err)
	}
	return s, json.Unmarshal(out, &s)
}

// Visitor returns a client as a browser is one: it resolves the site's name to
// address, trusts the lab's root, keeps connections, and repeats a GET whose
// kept connection broke before an answer came (RFC 9110 section 9.2.2).
func (l *Lab) Visitor(address string) (*http.Client, error) {
	pem, err := os.ReadFile(filepath.Join(l.Dir("s1", "lib"), "authority", "visitors.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the lab's root is no certificate")
	}
	d := net.Dialer{Timeout: 10 * time.Second}
	t := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots},
		MaxIdleConnsPerHost: 128, TLSHandshakeTimeout: 10 * time.Second,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return d.DialContext(ctx, network, net.JoinHostPort(address, port))
		},
	}
	return &http.Client{Transport: t, Timeout: 15 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}
