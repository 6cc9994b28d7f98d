package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// offline returns a board whose database nobody answers for.
func offline(t *testing.T) *board {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close() // connections to it are now refused
	s, err := openStore("mysql://u:p@" + l.Addr().String() + "/foobar")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return &board{log: slog.New(slog.NewTextHandler(io.Discard, nil)), store: s, server: "s1", instance: "1-1"}
}

func send(h http.Handler, method, target, body string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, res *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestRefusals has requests that are wrong in themselves, so that no database is asked.
func TestRefusals(t *testing.T) {
	const form, js = "application/x-www-form-urlencoded", "application/json"
	post := func(author, text, id string) string {
		return url.Values{"author": {author}, "text": {text}, "id": {id}}.Encode()
	}
	tests := []struct {
		name, method, target, kind, body string
		status                           int
		want                             string
	}{
		{"no author", "POST", "/", form, post("", "x", ""), 422, "author: it is empty"},
		{"blank text", "POST", "/", form, post("a", " \r\n ", ""), 422, "text: it is empty"},
		{"long text", "POST", "/", form, post("a", strings.Repeat("ä", 2001), ""), 422, "at most 2000 characters, please; these are 2001"},
		{"too long to read", "POST", "/", form, post("a", strings.Repeat("x", 40<<10), ""), 400, "could not be read"},
		{"typed text stays", "POST", "/", form, post("", "<b>kept", ""), 422, "&lt;b&gt;kept</textarea>"},
		{"API: no author", "POST", "/api/messages", js, `{"text":"x"}`, 422, "author: it is empty"},
		{"API: two lines", "POST", "/api/messages", js, `{"author":"a\nb","text":"x"}`, 422, "author: one line"},
		{"API: control", "POST", "/api/messages", js, `{"author":"a\u0000","text":"x"}`, 422, "without control characters"},
		{"API: bad id", "POST", "/api/messages", js, `{"author":"a","text":"x","id":"'; --"}`, 422, "id: 8 to 64"},
		{"API: form", "POST", "/api/messages", form, `author=a`, 422, "application/json, please"},
		{"API: unknown field", "POST", "/api/messages", js, `{"autor":"a","text":"x"}`, 422, "unknown field"},
		{"API: two objects", "POST", "/api/messages", js, `{"author":"a","text":"x"}{}`, 422, "one JSON object"},
		{"API: bad limit", "GET", "/api/messages?limit=1000", "", "", 400, "limit: a number from 1 to 200"},
		{"API: bad after", "GET", "/api/messages?after=x", "", "", 400, "after: a number"},
		{"API: nowhere", "GET", "/api/x", "", "", 404, "nothing at this address"},
		{"nowhere", "GET", "/x", "", "", 404, "There is no such page."},
		{"long search", "GET", "/?q=" + strings.Repeat("x", 101), "", "", 400, "not quite right"},
	}
	h := offline(t).routes()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := send(h, tt.method, tt.target, tt.body, "Content-Type", tt.kind)
			got := text(t, res)
			if res.StatusCode != tt.status || !strings.Contains(got, tt.want) {
				t.Errorf("got %d %s, want %d with %q", res.StatusCode, got, tt.status, tt.want)
			}
			if res.Header.Get("X-Server") != "s1" {
				t.Errorf("X-Server: got %q, want s1", res.Header.Get("X-Server"))
			}
		})
	}
}

func TestOtherSitesCannotPost(t *testing.T) {
	h := offline(t).routes()
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		if res := send(h, "POST", "/", "author=a&text=b", header...); res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: got %d, want 403", header, res.StatusCode)
		}
	}
}

// TestHealthWithoutDatabase holds what keeps a database switch from emptying the balancer.
func TestHealthWithoutDatabase(t *testing.T) {
	if res := send(offline(t).routes(), "GET", "/healthz", ""); res.StatusCode != http.StatusOK {
		t.Errorf("got %d, want 200", res.StatusCode)
	}
}

func TestWithoutDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 8 s: the time that foobar waits for a database")
	}
	h := offline(t).routes()
	for _, tt := range []struct{ method, target, body string }{
		{"GET", "/", ""},
		{"GET", "/api/messages", ""},
		{"POST", "/api/messages", `{"author":"a","text":"b"}`},
	} {
		t.Run(tt.method+tt.target, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			res := send(h, tt.method, tt.target, tt.body, "Content-Type", "application/json")
			if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
				t.Errorf("got %d, Retry-After %q, want 503 with one", res.StatusCode, res.Header.Get("Retry-After"))
			}
			if took := time.Since(begun); took < 5*time.Second || took > requestLimit+time.Second {
				t.Errorf("took %s, want between 5 s and %s", took, requestLimit)
			}
		})
	}
}

func TestPasses(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&mysql.MySQLError{Number: 1047}, true},
		{&mysql.MySQLError{Number: 1213}, true},
		{&mysql.MySQLError{Number: 1290}, true},
		{&mysql.MySQLError{Number: duplicateKey}, false},
		{&mysql.MySQLError{Number: 1064}, false},
		{mysql.ErrInvalidConn, true},
		{&net.OpError{Op: "dial", Err: io.EOF}, true},
		{context.DeadlineExceeded, true},
		{errConflict, false},
	} {
		if got := passes(tt.err); got != tt.want {
			t.Errorf("passes(%v): got %v, want %v", tt.err, got, tt.want)
		}
	}
}

func TestListen(t *testing.T) {
	path := t.TempDir() + "/s.sock"
	for range 2 { // the second finds the first's socket file
		l, err := listen(func(k string) string { return map[string]string{"SOCKET": path}[k] })
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		_ = l.Close()
	}
	if _, err := listen(func(string) string { return "" }); err == nil {
		t.Error("without $SOCKET and $PORT: got no error")
	}
}

func decode(t *testing.T, res *http.Response, v any) {
	t.Helper()
	if err := json.NewDecoder(res.Body).Decode(v); err != nil {
		t.Fatal(err)
	}
}
