package main

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

//go:embed pages/*.html
var pageFiles embed.FS

var pages = template.Must(template.ParseFS(pageFiles, "pages/*.html"))

// pageSize is how many messages a page shows.
const pageSize = 30

// board answers the requests.
type board struct {
	log      *slog.Logger
	store    *store
	server   string // that it runs on
	instance string
}

// view is what a page shows.
type view struct {
	Server, Instance, Query, Problem string
	Draft                            message
	Messages                         []message
	Older                            string // address of the next page; empty: there is none
	MaxAuthor, MaxText, MaxQuery     int
}

func (b *board) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("GET /{$}", b.index)
	mux.HandleFunc("POST /{$}", b.post)
	mux.HandleFunc("GET /api/messages", b.apiList)
	mux.HandleFunc("POST /api/messages", b.apiPost)
	mux.HandleFunc("GET /api/messages/{id}", b.apiGet)
	mux.HandleFunc("/", b.missing)
	// A page of another site cannot make its visitors' browsers post here
	// (Sec-Fetch-Site, or Origin against Host); programs send neither.
	return b.limit(http.NewCrossOriginProtection().Handler(mux))
}

// limit gives every request its time, every answer its common headers, and ends what asks for too much.
func (b *board) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestLimit)
		defer cancel()
		h := w.Header()
		h.Set("X-Server", b.server)
		h.Set("Cache-Control", "no-cache, private")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		r.Body = http.MaxBytesReader(w, r.Body, 32<<10)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// healthz says that this process works. It does not ask the database: all
// instances share that one, so that a moment without it would take all of them
// out of the traffic at once, and turn a short wait into an outage.
func healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}

// index shows the newest messages, or those that match a search.
func (b *board) index(w http.ResponseWriter, r *http.Request) {
	v := view{Query: strings.TrimSpace(r.FormValue("q")), Draft: message{ID: newID()}}
	before, err := number64(r.FormValue("before"))
	if err != nil || !searchable(v.Query) {
		b.problem(w, http.StatusBadRequest, "This address is not quite right.")
		return
	}
	v.Messages, err = b.store.list(r.Context(), selection{query: v.Query, before: before, limit: pageSize + 1})
	if err != nil {
		b.unavailable(w, r, err)
		return
	}
	if len(v.Messages) > pageSize {
		v.Messages = v.Messages[:pageSize]
		q := url.Values{"before": {strconv.FormatInt(v.Messages[pageSize-1].Seq, 10)}}
		if v.Query != "" {
			q.Set("q", v.Query)
		}
		v.Older = "/?" + q.Encode()
	}
	b.render(w, http.StatusOK, v)
}

// post takes the form and, when the message is stored, sends the browser back
// to the board, so that loading that page again posts nothing.
func (b *board) post(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		b.problem(w, http.StatusBadRequest, "This form could not be read; is the text too long?")
		return
	}
	m := message{ID: r.PostForm.Get("id"), Author: r.PostForm.Get("author"), Text: r.PostForm.Get("text"), Server: b.server}
	if err := m.clean(); err != nil {
		b.again(w, r, m, http.StatusUnprocessableEntity, err.Error())
		return
	}
	switch _, err := b.store.add(r.Context(), m); {
	case errors.Is(err, errConflict):
		m.ID = newID() // the page came from a browser's history: a new message
		b.again(w, r, m, http.StatusConflict, "You have posted from this page before. Post once more if this is a new message.")
	case err != nil:
		b.log.Error("store message", "err", err)
		w.Header().Set("Retry-After", "2")
		b.again(w, r, m, http.StatusServiceUnavailable, "The message is not stored yet. Please post it again; it will not appear twice.")
	default:
		http.Redirect(w, r, "/#"+url.PathEscape(m.ID), http.StatusSeeOther)
	}
}

// again shows the form with what was typed, and what to do about it.
func (b *board) again(w http.ResponseWriter, _ *http.Request, m message, status int, problem string) {
	if !idForm.MatchString(m.ID) {
		m.ID = newID()
	}
	b.render(w, status, view{Draft: m, Problem: problem})
}

func (b *board) missing(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		b.apiError(w, http.StatusNotFound, "there is nothing at this address")
		return
	}
	b.problem(w, http.StatusNotFound, "There is no such page.")
}

func (b *board) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil || errors.Is(r.Context().Err(), context.DeadlineExceeded) {
		b.log.Error("answer request", "path", r.URL.Path, "err", err)
	}
	w.Header().Set("Retry-After", "2")
	b.problem(w, http.StatusServiceUnavailable, "The board cannot be read at this moment. Please try again.")
}

func (b *board) problem(w http.ResponseWriter, status int, text string) {
	b.render(w, status, view{Problem: text, Draft: message{ID: newID()}})
}

func (b *board) render(w http.ResponseWriter, status int, v view) {
	v.Server, v.Instance = b.server, b.instance
	v.MaxAuthor, v.MaxText, v.MaxQuery = maxAuthor, maxText, maxQuery
	var page bytes.Buffer
	if err := pages.ExecuteTemplate(&page, "board.html", v); err != nil {
		b.log.Error("render page", "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w)
}

// number64 reads a number that may be left out.
func number64(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, invalid("a number from 0 up, please")
	}
	return n, nil
}

func searchable(q string) bool {
	return utf8.ValidString(q) && utf8.RuneCountInString(q) <= maxQuery && !strings.ContainsFunc(q, control)
}

// When is the message's time for people.
func (m message) When() string { return m.Created.UTC().Format("2 Jan 2006, 15:04 UTC") }

// Stamp is the message's time for machines.
func (m message) Stamp() string { return m.Created.UTC().Format(time.RFC3339) }
