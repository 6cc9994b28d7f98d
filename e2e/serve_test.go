package e2e

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A new user's first minute: up, every part healthy, the curl line works as printed, the console lets in once.
func TestUp(t *testing.T) {
	out, err := ring.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ring.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	healthy := 0
	for _, srv := range s.Servers {
		for _, p := range srv.Parts {
			if p.Healthy {
				healthy++
			}
		}
	}
	if healthy != 21 || !s.Healthy {
		t.Errorf("%d of 21 parts are healthy, healthy = %v:\n%s", healthy, s.Healthy, must(t, "status"))
	}
	line := ""
	for l := range strings.Lines(out) {
		if i := strings.Index(l, "curl "); i >= 0 {
			line = strings.TrimSpace(l[i:])
		}
	}
	page, err := exec.Command("sh", "-c", line+" --silent --show-error --fail").Output()
	if err != nil || !strings.Contains(string(page), "<html") {
		t.Errorf("the printed line %q gave %v and %.200s", line, err, page)
	}
}

// What is posted through one server is read through the two others at once.
func TestPostIsReadEverywhere(t *testing.T) {
	ensureUp(t)
	for i := 1; i <= 3; i++ {
		text := fmt.Sprintf("through s%d at %d", i, time.Now().UnixNano())
		post(t, visitor(t, ring.Address(i)), text)
		for j := 1; j <= 3; j++ {
			if _, body := get(t, visitor(t, ring.Address(j)), "/"); !strings.Contains(body, text) {
				t.Errorf("posted through s%d, not read through s%d", i, j)
			}
		}
	}
}

func TestRedirects(t *testing.T) {
	ensureUp(t)
	c := visitor(t, ring.Floating())
	res, err := c.Get("http://" + Domain + "/a?b=c")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	want := "https://" + Domain + "/a?b=c"
	if got := res.Header.Get("Location"); got != want || res.StatusCode/100 != 3 {
		t.Errorf("port 80 answers %s to %q, want a redirect to %q", res.Status, got, want)
	}
}

func TestStaticFiles(t *testing.T) {
	ensureUp(t)
	c := visitor(t, ring.Floating())
	res, err := c.Get("https://" + Domain + "/style.css")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if got := res.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/css") {
		t.Errorf("style.css has the type %q", got)
	}
	req, err := http.NewRequest(http.MethodGet, "https://"+Domain+"/style.css", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("If-None-Match", res.Header.Get("ETag"))
	again, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Body.Close()
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("a known ETag is answered with %s", again.Status)
	}
}

// A real browser opens the page and shows a message that was posted.
func TestBrowser(t *testing.T) {
	ensureUp(t)
	text := fmt.Sprintf("seen by a browser %d", time.Now().UnixNano())
	post(t, visitor(t, ring.Address(2)), text)
	dom := browse(t, "https://"+Domain+"/", ring.Floating())
	if !strings.Contains(dom, text) {
		t.Errorf("the browser does not show %q:\n%.500s", text, dom)
	}
}

// The console opens in a browser and shows all three servers after the one-time sign-in.
func TestConsoleSignsInOnce(t *testing.T) {
	ensureUp(t)
	url := strings.Fields(must(t, "signin"))[0]
	c := visitor(t, ring.Address(1))
	token := url[strings.Index(url, "token=")+len("token="):]
	first := signIn(t, c, token)
	if first.StatusCode/100 != 3 || len(first.Cookies()) == 0 {
		t.Fatalf("sign-in is answered with %s and %d cookies", first.Status, len(first.Cookies()))
	}
	if second := signIn(t, c, token); len(second.Cookies()) > 0 {
		t.Error("a sign-in works twice")
	}
	// The session is good on another server's console too.
	for i := 1; i <= 3; i++ {
		if code := console(t, visitor(t, ring.Address(i)), i, first.Cookies()[0]); code != http.StatusOK {
			t.Errorf("the console of s%d answers %d to a session", i, code)
		}
		if code := console(t, visitor(t, ring.Address(i)), i, nil); code != http.StatusUnauthorized {
			t.Errorf("the console of s%d answers %d without a session", i, code)
		}
	}
}

func signIn(t *testing.T, c *http.Client, token string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "https://"+ring.Address(1)+":9443/signin", strings.NewReader("token="+token))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", "https://"+ring.Address(1)+":9443")
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res
}

func console(t *testing.T, c *http.Client, i int, session *http.Cookie) int {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "https://"+ring.Address(i)+":9443/api/now", nil)
	if err != nil {
		t.Fatal(err)
	}
	if session != nil {
		req.AddCookie(session)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// browse returns the document that headless Chromium has made of a page. The
// browser accepts just the key that the address shows to a client that checks
// the lab's root.
func browse(t *testing.T, url, address string) string {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("SKIP: chromium is not installed: make deps-test")
	}
	cmd := exec.CommandContext(t.Context(), chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
		"--user-data-dir="+t.TempDir(), "--host-resolver-rules=MAP "+Domain+" "+address,
		"--ignore-certificate-errors-spki-list="+pin(t, address), "--dump-dom", url)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium: %v", err)
	}
	return string(out)
}

// pin is the hash of the key that the site shows, after its chain was verified.
func pin(t *testing.T, address string) string {
	t.Helper()
	cfg := visitor(t, address).Transport.(*http.Transport).TLSClientConfig.Clone()
	cfg.ServerName = Domain
	c, err := tls.Dial("tcp", net.JoinHostPort(address, "443"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	sum := sha256.Sum256(c.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Nothing of a message is in the clear on the bridge while it travels from visitor to database and back.
func TestNothingInTheClear(t *testing.T) {
	ensureUp(t)
	marker := fmt.Sprintf("marker%dmarker", time.Now().UnixNano())
	wire := capture(t, func() {
		for i := 1; i <= 3; i++ {
			c := visitor(t, ring.Address(i))
			post(t, c, fmt.Sprintf("%s %d", marker, i))
			if _, body := get(t, c, "/"); !strings.Contains(body, marker) {
				t.Error("the page does not show the marker")
			}
		}
	})
	if strings.Contains(string(wire), marker) {
		t.Error("the marker is in the clear on the bridge")
	}
	t.Logf("%d bytes captured", len(wire))
}

// capture is what went over the bridge meanwhile.
func capture(t *testing.T, during func()) []byte {
	t.Helper()
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("SKIP: tcpdump is not installed: make deps-test")
	}
	file := filepath.Join(t.TempDir(), "wire")
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	bridge := interfaceOf(t, ring.Prefix+".1")
	dump := exec.CommandContext(ctx, "tcpdump", "-i", bridge, "-s", "0", "-U", "-w", file)
	dump.Cancel = func() error { return dump.Process.Signal(syscall.SIGINT) }
	if err := dump.Start(); err != nil {
		t.Fatal(err)
	}
	size := func() int64 {
		info, err := os.Stat(file)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	eventually(t, 10*time.Second, "tcpdump captures", func() bool { return size() > 24 })
	before := size()
	during()
	eventually(t, 10*time.Second, "the capture holds the traffic", func() bool { return size() > before+10_000 })
	stop()
	_ = dump.Wait()
	wire, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// interfaceOf finds the interface of this machine that carries an address.
func interfaceOf(t *testing.T, address string) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if strings.HasPrefix(a.String(), address+"/") {
				return i.Name
			}
		}
	}
	t.Fatalf("no interface carries %s", address)
	return ""
}
