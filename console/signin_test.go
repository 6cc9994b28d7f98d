package console_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var onceHash = func() string {
	sum := sha256.Sum256([]byte("once"))
	return hex.EncodeToString(sum[:])
}()

// client is a browser that keeps cookies and does not follow redirects.
func client(t *testing.T, srv *httptest.Server) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := *srv.Client()
	c.Jar = jar
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

func status(t *testing.T, c *http.Client, r *http.Request) int {
	t.Helper()
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func post(t *testing.T, address, token string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, address, strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func TestSignInOnce(t *testing.T) {
	srv := serve(t, newDemo(false))
	first, second := client(t, srv), client(t, srv)
	got := []int{
		status(t, first, get(t, srv.URL+"/signin?token=once")), // a look does not use it up
		status(t, first, get(t, srv.URL+"/signin?token=once")),
		status(t, first, get(t, srv.URL+"/api/now")),
		status(t, first, post(t, srv.URL+"/signin", "wrong")),
		status(t, first, post(t, srv.URL+"/signin", "once")),
		status(t, first, get(t, srv.URL+"/api/now")),
		status(t, second, post(t, srv.URL+"/signin", "once")),
		status(t, second, get(t, srv.URL+"/api/now")),
		status(t, first, post(t, srv.URL+"/signout", "")),
		status(t, first, get(t, srv.URL+"/api/now")),
	}
	want := []int{200, 200, 401, 403, 303, 200, 403, 401, 303, 401}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statuses (-want +got):\n%s", diff)
	}
}

func TestSignInFromElsewhere(t *testing.T) {
	srv := serve(t, newDemo(false))
	r := post(t, srv.URL+"/signin", "once")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if got := status(t, client(t, srv), r); got != http.StatusForbidden {
		t.Errorf("a form on another site: got %d, want 403", got)
	}
}

func TestSignInIsLimited(t *testing.T) {
	srv := serve(t, newDemo(false))
	c := client(t, srv)
	last := 0
	for range 11 {
		last = status(t, c, post(t, srv.URL+"/signin", "guess"))
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("the eleventh attempt: got %d, want 429", last)
	}
}

func TestForgedCookies(t *testing.T) {
	srv := serve(t, newDemo(false))
	c := client(t, srv)
	if got := status(t, c, post(t, srv.URL+"/signin", "once")); got != http.StatusSeeOther {
		t.Fatalf("sign in: got %d", got)
	}
	u, _ := url.Parse(srv.URL)
	good := c.Jar.Cookies(u)[0].Value
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(i int) string {
		b := append([]byte(nil), raw...)
		b[i] ^= 1
		return base64.RawURLEncoding.EncodeToString(b)
	}
	for _, test := range []struct {
		name, value string
		want        int
	}{
		{"as it was given", good, 200},
		{"later end", flip(7), 401},
		{"other nonce", flip(12), 401},
		{"other signature", flip(len(raw) - 1), 401},
		{"cut short", good[:len(good)-4], 401},
		{"empty", "", 401},
		{"no base64", "!", 401},
	} {
		r := get(t, srv.URL+"/api/now")
		r.AddCookie(&http.Cookie{Name: "__Host-trivet", Value: test.value})
		if got := status(t, srv.Client(), r); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}

func TestWithoutSession(t *testing.T) {
	srv := serve(t, newDemo(false))
	for path, want := range map[string]int{
		"/": 401, "/api/now": 401, "/api/points?after=0": 401, "/api/events": 401, "/nothing": 401,
		"/assets/style.css": 200, "/assets/": 404, "/assets/vendor/uplot/LICENSE": 200,
	} {
		if got := status(t, srv.Client(), get(t, srv.URL+path)); got != want {
			t.Errorf("%s: got %d, want %d", path, got, want)
		}
	}
	r := get(t, srv.URL+"/")
	r.Header.Set("Accept", "text/html")
	res, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	page, _ := io.ReadAll(res.Body)
	if !strings.Contains(string(page), "trivet signin") {
		t.Errorf("the page does not say how to sign in:\n%s", page)
	}
	if got, want := res.Header.Get("Content-Security-Policy"), "default-src 'self'"; !strings.HasPrefix(got, want) {
		t.Errorf("policy: got %q, want %q…", got, want)
	}
}
