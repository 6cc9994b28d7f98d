// Package console is the operator's page: what the three servers do now and
// did in the last hour, live, after a sign-in.
//
// It knows nothing of how things are measured; a Source tells it. It changes
// nothing but its own sessions. Without a session it shows only how to get
// one, and its style sheet.
package console

import (
	"context"
	"embed"
	"encoding/json"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"trivet/internal/overview"
)

//go:embed assets
var files embed.FS

//go:embed pages/*.html
var pages embed.FS

var templates = template.Must(template.ParseFS(pages, "pages/*.html"))

// Source is where the console's knowledge comes from. The monitor is one, and
// the tests have another.
type Source interface {
	// Now returns the present state; its Site is empty while there is none.
	Now() overview.Now
	// Points returns each server's points newer than a Unix second, oldest first.
	Points(after int64) map[string][]overview.Point
	// Next returns a channel that is closed when the next second is complete.
	Next() <-chan struct{}
}

// Config is what a console is made of.
type Config struct {
	Log    *slog.Logger
	Source Source
	// Key returns the key that signs sessions, the same on all servers; empty: nobody can sign in yet.
	Key func() []byte
	// Redeem reports whether a one-time sign-in token, given as its SHA-256 in
	// hexadecimal, is valid, and makes it invalid.
	Redeem func(ctx context.Context, tokenHash string) (bool, error)
	// Note is told in words who signed in or was refused; it may be nil.
	Note func(text string)
}

// Console is the http.Handler of all its pages.
type Console struct {
	cfg      Config
	sessions sessions
	attempts limiter
	streams  chan struct{} // one element for each open event stream
	handler  http.Handler
}

// streamLimit is how many event streams may be open at once.
const streamLimit = 64

// New returns a console.
func New(c Config) *Console {
	if c.Note == nil {
		c.Note = func(string) {}
	}
	co := &Console{cfg: c, sessions: sessions{key: c.Key}, streams: make(chan struct{}, streamLimit)}
	mux := http.NewServeMux()
	mux.Handle("GET /assets/", assets())
	mux.HandleFunc("GET /signin", co.offer)
	mux.HandleFunc("POST /signin", co.signIn)
	mux.HandleFunc("POST /signout", co.signOut)
	mux.Handle("GET /{$}", co.private(co.page))
	mux.Handle("GET /api/now", co.private(co.now))
	mux.Handle("GET /api/points", co.private(co.points))
	mux.Handle("GET /api/events", co.private(co.events))
	mux.Handle("/", co.private(http.NotFound))
	co.handler = harden(http.NewCrossOriginProtection().Handler(mux))
	return co
}

// ServeHTTP answers one request.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.handler.ServeHTTP(w, r) }

// harden sets the headers that confine the page in the browser.
func harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'")
		h.Set("Strict-Transport-Security", "max-age=31536000")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
		next.ServeHTTP(w, r)
	})
}

// assets serves the embedded files. They are public, as their source is.
func assets() http.Handler {
	sub, err := fs.Sub(files, "assets")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	h := http.StripPrefix("/assets/", http.FileServerFS(sub))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			http.NotFound(w, r) // no listing
			return
		}
		w.Header().Set("Cache-Control", "private, max-age=300")
		h.ServeHTTP(w, r)
	})
}

// private lets only signed-in requests through.
func (c *Console) private(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := c.sessions.of(r); ok {
			next(w, r)
			return
		}
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			c.render(w, http.StatusUnauthorized, "signedout.html", nil)
			return
		}
		refuse(w, http.StatusUnauthorized, "sign in first: run trivet signin on a server")
	})
}

func (c *Console) render(w http.ResponseWriter, status int, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if err := templates.ExecuteTemplate(w, name, data); err != nil {
		c.cfg.Log.Debug("write page", "page", name, "err", err)
	}
}

// refuse answers an API request with an error.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text})
}

func (c *Console) page(w http.ResponseWriter, _ *http.Request) {
	c.render(w, http.StatusOK, "index.html", c.cfg.Source.Now())
}

func (c *Console) now(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(c.cfg.Source.Now())
}

func (c *Console) points(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	if err != nil {
		refuse(w, http.StatusBadRequest, "after must be a Unix time in seconds")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(columns(c.cfg.Source.Points(after)))
}

// startOf is the oldest second that a browser gets unasked: five minutes.
func startOf(now time.Time) int64 { return now.Unix() - 300 }
