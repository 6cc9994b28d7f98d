package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// echoSource makes the example's app answer an Upgrade with what it is sent, as WebSockets are used.
const echoSource = `package main

import (
	"fmt"
	"io"
	"net/http"
)

func echo(w http.ResponseWriter, _ *http.Request) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if rw.Flush() != nil {
		return
	}
	_, _ = io.Copy(c, rw)
}
`

// echoSite is the example with that endpoint.
func echoSite(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "foobar")
	if err := os.CopyFS(dir, os.DirFS(filepath.Dir(ring.Site))); err != nil {
		t.Fatal(err)
	}
	web := filepath.Join(dir, "app", "web.go")
	data, err := os.ReadFile(web)
	if err != nil {
		t.Fatal(err)
	}
	const before = "\tmux.HandleFunc(\"GET /healthz\", healthz)\n"
	text := strings.Replace(string(data), before, before+"\tmux.HandleFunc(\"GET /echo\", echo)\n", 1)
	if text == string(data) {
		t.Fatal("the example's routes have nothing to edit")
	}
	for path, text := range map[string]string{web: text, filepath.Join(dir, "app", "echo.go"): echoSource} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "site.yaml")
}

// tunnel is an open WebSocket as far as what is between sees it.
type tunnel struct {
	c net.Conn
	r *bufio.Reader
}

// openTunnel opens one through the server at address.
func openTunnel(t *testing.T, address string) tunnel {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(ring.Dir("s1", "lib"), "authority", "visitors.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: &tls.Config{RootCAs: roots, ServerName: Domain, NextProtos: []string{"http/1.1"}}}
	c, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(address, "443"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	u := tunnel{c, bufio.NewReader(c)}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "GET /echo HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", Domain); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(u.r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("open a WebSocket: %v, %v, want 101", res, err)
	}
	return u
}

// echo sends a word and reads it back.
func (u tunnel) echo(word string) error {
	_ = u.c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(u.c, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(u.r, got); err != nil {
		return err
	}
	if string(got) != word {
		return fmt.Errorf("got %q, want %q", got, word)
	}
	return nil
}

// finishing is how many former processes there are on all servers.
func finishing(t *testing.T) int {
	t.Helper()
	s, err := ring.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, srv := range s.Servers {
		for _, w := range srv.Workers {
			n += len(w.Retiring)
		}
	}
	return n
}

// An open WebSocket outlives a changed site and another build: the former processes finish it, and end with it.
func TestOpenWebSocketGoesOn(t *testing.T) {
	ensureUp(t)
	site := echoSite(t)
	must(t, "apply", "--site", site)
	t.Cleanup(func() {
		if _, err := ring.Run(context.Background(), "apply", "--site", ring.Site); err != nil {
			t.Error(err)
		}
	})
	var open []tunnel
	for i := range 6 {
		open = append(open, openTunnel(t, ring.Address(1+i%3)))
	}
	all := func(when string) {
		t.Helper()
		for i, u := range open {
			if err := u.echo(fmt.Sprintf("word %d %s", i, when)); err != nil {
				t.Errorf("WebSocket %d %s: %v", i, when, err)
			}
		}
	}
	all("at first")
	data, err := os.ReadFile(site)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(data), "\n  retries: 2\n", "\n  retries: 1\n", 1)
	if changed == string(data) {
		t.Fatal("the site file has nothing to edit")
	}
	if err := os.WriteFile(site, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "apply", "--site", site)
	all("after another site")
	if _, err := operator(anotherBuild(t)).Run(t.Context(), "upgrade"); err != nil {
		t.Fatal(err)
	}
	all("after another build")
	if n := finishing(t); n == 0 {
		t.Error("no former process finishes the WebSockets")
	}
	for _, u := range open {
		_ = u.c.Close()
	}
	eventually(t, 60*time.Second, "the end of the former processes", func() bool { return finishing(t) == 0 })
}
