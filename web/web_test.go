package web_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/metric"
	"trivet/internal/mtls"
	"trivet/internal/mtls/mtlstest"
	"trivet/internal/part"
	"trivet/proxy/proxytest"
	"trivet/site"
	"trivet/web"
)

// bench is a web server, a release and a balancer's client.
type bench struct {
	t      *testing.T
	ca     *mtlstest.Authority
	web    *web.Web
	state  part.State
	url    string
	client *http.Client
	dir    string // of the release
	access *proxytest.Lines
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, ca: mtlstest.New(t, "foobar"), dir: t.TempDir(), access: &proxytest.Lines{}}
	l := proxytest.Listen(t)
	b.web = web.New(web.Config{Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry(), Listener: l, Access: b.access})
	b.state = part.State{
		Site: &site.Site{
			Name: "foobar", Domain: "www.foobar.com", Web: site.Web{Index: "index.html"},
			Balancer: site.Balancer{Health: site.Health{Path: "/healthz"}, Timeout: site.Duration(5 * time.Second)},
		},
		Server: "s1", Identity: b.ca.Identity(t, "s1", part.Web), Bundle: b.ca.Bundle,
		Release: part.Release{Hash: "r1", Dir: b.dir},
	}
	b.url = "https://" + l.Addr().String()
	b.client = b.as(part.Balancer)
	b.run()
	return b
}

func (b *bench) run() {
	ctx, stop := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- b.web.Run(ctx) }()
	b.t.Cleanup(func() {
		b.client.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
}

// as returns a client with the identity of a part on another server.
func (b *bench) as(partName string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:    mtls.Client(b.ca.Source(b.t, "s2", partName), "s1", part.Web),
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (b *bench) write(name string, content []byte) {
	b.t.Helper()
	path := filepath.Join(b.dir, "static", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) apply() {
	b.t.Helper()
	if err := b.web.Apply(b.t.Context(), b.state); err != nil {
		b.t.Fatalf("Apply: %v", err)
	}
}

// ask sends a request with headers, "name: value".
func (b *bench) ask(method, path string, headers ...string) (*http.Response, string) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	resp, err := b.client.Do(r)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, string(text)
}

func packed(t *testing.T, text string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, _ = w.Write([]byte(text))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestStatic(t *testing.T) {
	b := newBench(t)
	b.write("index.html", []byte("home"))
	b.write("ten.txt", []byte("0123456789"))
	b.write("empty.txt", nil)
	b.write("docs/index.html", []byte("docs"))
	b.write("a b%.css", []byte("spaced"))
	b.write(".env", []byte("secret"))
	b.write(".git/config", []byte("secret"))
	b.write(".well-known/security.txt", []byte("contact"))
	b.write("app.3f9a2b1c.js", []byte("js"))
	b.write("zip.css", []byte("plain css"))
	b.write("zip.css.gz", packed(t, "plain css"))
	large := bytes.Repeat([]byte("large file "), 100_000)
	b.write("large.wasm", large)
	secret := filepath.Join(b.dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"out.txt": secret, "up.txt": "../secret", "in.txt": "ten.txt"} {
		if err := os.Symlink(to, filepath.Join(b.dir, "static", link)); err != nil {
			t.Fatal(err)
		}
	}
	b.apply()
	ten, _ := b.ask("GET", "/ten.txt")
	tag, modified := ten.Header.Get("ETag"), ten.Header.Get("Last-Modified")
	if !strings.HasPrefix(tag, `"`) {
		t.Fatalf("ETag: got %q, want a strong one", tag)
	}

	tests := []struct {
		method, path string
		headers      []string
		status       int
		body         string            // "*": any
		want         map[string]string // headers of the answer; "" must be absent
	}{
		{"GET", "/", nil, 200, "home", map[string]string{"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache", "X-Served-By": "s1"}},
		{"HEAD", "/ten.txt", nil, 200, "", map[string]string{"Content-Length": "10", "ETag": tag}},
		{"GET", "/empty.txt", nil, 200, "", map[string]string{"Content-Length": "0"}},
		{"GET", "/docs/", nil, 200, "docs", nil},
		{"GET", "/docs?q=1", nil, 301, "", map[string]string{"Location": "/docs/?q=1"}},
		{"GET", "//docs", nil, 404, "*", nil},
		{"GET", "/a%20b%25.css", nil, 200, "spaced", map[string]string{"Content-Type": "text/css; charset=utf-8"}},
		{"GET", "/app.3f9a2b1c.js", nil, 200, "js", map[string]string{"Cache-Control": "public, max-age=31536000, immutable"}},
		{"GET", "/in.txt", nil, 200, "0123456789", nil},
		{"GET", "/out.txt", nil, 404, "*", nil},
		{"GET", "/up.txt", nil, 404, "*", nil},
		{"GET", "/../secret", nil, 404, "*", nil},
		{"GET", "/..%2fsecret", nil, 404, "*", nil},
		{"GET", "/%2e%2e/secret", nil, 404, "*", nil},
		{"GET", "/.env", nil, 404, "*", nil},
		{"GET", "/.git/config", nil, 404, "*", nil},
		{"GET", "/.well-known/security.txt", nil, 200, "contact", nil},
		{"GET", "/nothing", nil, 404, "*", map[string]string{"ETag": ""}},
		{"GET", "/healthz", nil, 200, "ok\n", nil},
		{"POST", "/ten.txt", nil, 405, "*", map[string]string{"Allow": "GET, HEAD"}},
		{"DELETE", "/", nil, 405, "*", map[string]string{"Allow": "GET, HEAD"}},
		{"GET", "/large.wasm", nil, 200, string(large), map[string]string{"Content-Type": "application/wasm"}},
		{"GET", "/large.wasm", []string{"Range: bytes=1000000-1000010"}, 206, string(large[1000000:1000011]), nil},

		{"GET", "/ten.txt", []string{"Range: bytes=2-4"}, 206, "234", map[string]string{"Content-Range": "bytes 2-4/10", "Content-Length": "3"}},
		{"GET", "/ten.txt", []string{"Range: bytes=-3"}, 206, "789", map[string]string{"Content-Range": "bytes 7-9/10"}},
		{"GET", "/ten.txt", []string{"Range: bytes=8-"}, 206, "89", nil},
		{"GET", "/ten.txt", []string{"Range: bytes=8-99"}, 206, "89", nil},
		{"GET", "/ten.txt", []string{"Range: bytes=10-"}, 416, "*", map[string]string{"Content-Range": "bytes */10"}},
		{"GET", "/ten.txt", []string{"Range: lines=1-2"}, 200, "0123456789", nil},
		{"HEAD", "/ten.txt", []string{"Range: bytes=2-4"}, 206, "", map[string]string{"Content-Length": "3"}},
		{"GET", "/ten.txt", []string{"Range: bytes=2-4", "If-Range: " + tag}, 206, "234", nil},
		{"GET", "/ten.txt", []string{"Range: bytes=2-4", `If-Range: "other"`}, 200, "0123456789", nil},
		{"GET", "/ten.txt", []string{"Range: bytes=2-4", "If-Range: W/" + tag}, 200, "0123456789", nil},
		{"GET", "/ten.txt", []string{"Range: bytes=2-4", "If-Range: " + modified}, 206, "234", nil},

		{"GET", "/ten.txt", []string{"If-None-Match: " + tag}, 304, "", map[string]string{"ETag": tag, "Cache-Control": "public, max-age=300"}},
		{"HEAD", "/ten.txt", []string{"If-None-Match: " + tag}, 304, "", nil},
		{"GET", "/ten.txt", []string{"If-None-Match: W/" + tag}, 304, "", nil},
		{"GET", "/ten.txt", []string{`If-None-Match: "x", ` + tag}, 304, "", nil},
		{"GET", "/ten.txt", []string{"If-None-Match: *"}, 304, "", nil},
		{"GET", "/ten.txt", []string{`If-None-Match: "x"`}, 200, "0123456789", nil},
		{"GET", "/ten.txt", []string{"If-Modified-Since: " + modified}, 304, "", nil},
		{"GET", "/ten.txt", []string{"If-Modified-Since: " + modified, `If-None-Match: "x"`}, 200, "0123456789", nil},
		{"GET", "/ten.txt", []string{"If-Modified-Since: Mon, 01 Jan 2001 00:00:00 GMT"}, 200, "0123456789", nil},
		{"GET", "/ten.txt", []string{`If-Match: "x"`}, 412, "", nil},

		{"GET", "/zip.css", nil, 200, "plain css", map[string]string{"Content-Encoding": "", "Vary": "Accept-Encoding"}},
		{"GET", "/zip.css", []string{"Accept-Encoding: br, gzip;q=0.5"}, 200, string(packed(t, "plain css")), map[string]string{"Content-Encoding": "gzip", "Content-Type": "text/css; charset=utf-8", "Vary": "Accept-Encoding"}},
		{"GET", "/zip.css", []string{"Accept-Encoding: gzip; q=0"}, 200, "plain css", map[string]string{"Content-Encoding": ""}},
		{"GET", "/zip.css", []string{"Accept-Encoding: gzip;q=0.0, identity"}, 200, "plain css", nil},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %s %s", tt.method, tt.path, tt.headers), func(t *testing.T) {
			resp, body := b.ask(tt.method, tt.path, tt.headers...)
			if resp.StatusCode != tt.status {
				t.Errorf("status: got %d, want %d", resp.StatusCode, tt.status)
			}
			if tt.body != "*" && body != tt.body {
				t.Errorf("body: got %.60q (%d bytes), want %.60q", body, len(body), tt.body)
			}
			got := map[string]string{}
			for name := range tt.want {
				got[name] = resp.Header.Get(name)
			}
			if diff := cmp.Diff(tt.want, got); tt.want != nil && diff != "" {
				t.Errorf("headers: -want +got\n%s", diff)
			}
			if strings.Contains(body, "secret") {
				t.Errorf("body has the secret")
			}
		})
	}
	t.Run("several ranges", func(t *testing.T) {
		resp, body := b.ask("GET", "/ten.txt", "Range: bytes=0-0, 9-9")
		kind := resp.Header.Get("Content-Type")
		if resp.StatusCode != 206 || !strings.HasPrefix(kind, "multipart/byteranges") ||
			!strings.Contains(body, "bytes 0-0/10") || !strings.Contains(body, "bytes 9-9/10") {
			t.Errorf("got %d %s\n%s", resp.StatusCode, kind, body)
		}
	})
}

// TestSwap replaces the release: the new files are there, the old ones gone,
// and an answer that began with the old ones ends with them.
func TestSwap(t *testing.T) {
	b := newBench(t)
	old := bytes.Repeat([]byte("old "), 1<<20)
	b.write("big.bin", old)
	b.write("gone.txt", []byte("old"))
	b.apply()
	resp, err := b.client.Get(b.url + "/big.bin")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b.dir = t.TempDir()
	b.write("big.bin", []byte("new"))
	b.state.Release = part.Release{Hash: "r2", Dir: b.dir}
	b.apply()
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, old) {
		t.Errorf("answer that was under way: %d bytes, %v; want %d of the old file", len(got), err, len(old))
	}
	if _, body := b.ask("GET", "/big.bin"); body != "new" {
		t.Errorf("after the swap: got %.20q, want new", body)
	}
	if resp, _ := b.ask("GET", "/gone.txt"); resp.StatusCode != 404 {
		t.Errorf("file that is gone: got %d, want 404", resp.StatusCode)
	}
	missing := b.state
	missing.Release = part.Release{Hash: "r3", Dir: filepath.Join(b.dir, "none")}
	if b.web.Apply(t.Context(), missing) == nil {
		t.Error("Apply with a release that is not there: got nil, want an error")
	}
	b.state.Bundle = []byte("broken")
	if b.web.Apply(t.Context(), b.state) == nil {
		t.Error("Apply with a broken bundle: got nil, want an error")
	}
	if _, body := b.ask("GET", "/big.bin"); body != "new" {
		t.Errorf("after a refused Apply: got %.20q, want new", body)
	}
}

// instance starts an app on a unix socket.
func (b *bench) instance(name string, h http.HandlerFunc) part.Instance {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	b.t.Cleanup(func() { _ = srv.Close(); <-done })
	return part.Instance{Name: name, Network: "unix", Address: path}
}

func TestApp(t *testing.T) {
	b := newBench(t)
	b.write("file.txt", []byte("file"))
	b.state.Site.App = site.App{Source: "app", Health: site.Health{Path: "/app-health"}}
	echo := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %s for=%s id=%s %s", r.Method, r.RequestURI, r.Host,
			r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Request-Id"), body)
	}
	b.state.Instances = []part.Instance{b.instance("1-1", echo)}
	b.apply()

	_, body := b.ask("GET", "/x%2Fy//z?a=1;b&c=%zz", "X-Forwarded-For: 203.0.113.9", "X-Request-Id: abc")
	want := "GET /x%2Fy//z?a=1;b&c=%zz " + strings.TrimPrefix(b.url, "https://") + " for=203.0.113.9 id=abc "
	if body != want {
		t.Errorf("got %q, want %q", body, want)
	}
	if _, body := b.ask("GET", "/file.txt"); body != "file" {
		t.Errorf("file before the app: got %q", body)
	}
	if _, body := b.ask("GET", "/", "X-Trivet-Check: 500"); !strings.HasPrefix(body, "GET /app-health ") {
		t.Errorf("check: got %q, want the app's health path", body)
	}
	if err := b.web.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// The log names the visitor and the instance, not the balancer and a socket's path.
func TestAccessLog(t *testing.T) {
	b := newBench(t)
	b.state.Site.App.Source = "app"
	b.state.Instances = []part.Instance{b.instance("1-1", func(http.ResponseWriter, *http.Request) {})}
	b.apply()
	b.ask("GET", "/x", "X-Forwarded-For: 192.0.2.7", "X-Request-Id: 42")
	proxytest.Until(t, "a line", func() bool { return strings.Contains(b.access.String(), "\n") })
	var got struct{ ID, Client, Server, Path string }
	if err := json.Unmarshal([]byte(b.access.String()), &got); err != nil {
		t.Fatal(err)
	}
	want := got
	want.ID, want.Client, want.Server, want.Path = "42", "192.0.2.7", "1-1", "/x"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestDeadInstance: one that cannot be reached costs nothing; with none, 503.
func TestDeadInstance(t *testing.T) {
	b := newBench(t)
	b.state.Site.App = site.App{Source: "app", Health: site.Health{Path: "/"}}
	well := b.instance("1-1", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "well") })
	dead := part.Instance{Name: "1-2", Network: "unix", Address: filepath.Join(t.TempDir(), "none")}
	b.state.Instances = []part.Instance{dead, well}
	b.apply()
	for range 20 {
		for _, method := range []string{"GET", "POST"} {
			if resp, body := b.ask(method, "/"); resp.StatusCode != 200 || body != "well" {
				t.Fatalf("%s: got %d %q, want 200 well", method, resp.StatusCode, body)
			}
		}
	}
	b.state.Instances = []part.Instance{dead}
	b.apply()
	if resp, _ := b.ask("GET", "/"); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("dead only: got %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	b.state.Instances = nil
	b.apply()
	if resp, _ := b.ask("POST", "/"); resp.StatusCode != 503 {
		t.Errorf("none: got %d, want 503", resp.StatusCode)
	}
	if b.web.Check(t.Context()) == nil {
		t.Error("Check without an instance: got nil")
	}
}

// TestSlowApp: a check is answered before the balancer gives up on it.
func TestSlowApp(t *testing.T) {
	b := newBench(t)
	b.state.Site.App = site.App{Source: "app", Health: site.Health{Path: "/"}}
	b.state.Instances = []part.Instance{b.instance("1-1", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
	b.apply()
	if resp, _ := b.ask("GET", "/", "X-Trivet-Check: 100"); resp.StatusCode != 504 {
		t.Errorf("got %d, want 504", resp.StatusCode)
	}
}

// TestRefusedAreNamed: what cannot be understood of a balancer's request has an
// ID in its answer, and a line in the log with it and the balancer's address.
func TestRefusedAreNamed(t *testing.T) {
	b := newBench(t)
	b.apply()
	for text, status := range map[string]int{"GET / HTTP/1.1\r\n\r\n": 400, "GET / HTTP/3.0\r\nHost: a\r\n\r\n": 505} {
		c, err := tls.Dial("tcp", strings.TrimPrefix(b.url, "https://"), mtls.Client(b.ca.Source(t, "s2", part.Balancer), "s1", part.Web))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, text)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		id := resp.Header.Get("X-Request-Id")
		if resp.StatusCode != status || id == "" {
			t.Errorf("%q: got %d, ID %q, want %d and one", text, resp.StatusCode, id, status)
		}
		want := fmt.Sprintf(`"client":"127.0.0.1","protocol":"HTTP/1.1","status":%d,`, status)
		proxytest.Until(t, "a line for "+id, func() bool {
			for line := range strings.Lines(b.access.String()) {
				if strings.Contains(line, `"id":"`+id+`"`) && strings.Contains(line, want) {
					return true
				}
			}
			return false
		})
	}
}

// TestOnlyBalancers: no other part of the site gets an answer.
func TestOnlyBalancers(t *testing.T) {
	b := newBench(t)
	b.write("index.html", []byte("home"))
	b.apply()
	for _, name := range []string{part.Web, part.Monitor, part.Node} {
		if resp, err := b.as(name).Get(b.url); err == nil {
			_ = resp.Body.Close()
			t.Errorf("%s: got %d, want a refused handshake", name, resp.StatusCode)
		}
	}
	bare := &http.Client{Transport: &http.Transport{TLSClientConfig: mtls.Client(&mtls.Source{}, "", part.Web)}}
	if resp, err := bare.Get(b.url); err == nil {
		_ = resp.Body.Close()
		t.Error("no identity: got an answer")
	}
}
