package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
)

// apiList answers GET /api/messages?q=&after=&limit=. With after it gives the
// messages that follow, oldest first, and otherwise the newest first.
func (b *board) apiList(w http.ResponseWriter, r *http.Request) {
	sel, err := apiSelection(r)
	if err != nil {
		b.apiError(w, http.StatusBadRequest, err.Error())
		return
	}
	list, err := b.store.list(r.Context(), sel)
	if err != nil {
		b.apiUnavailable(w, err)
		return
	}
	b.json(w, http.StatusOK, map[string]any{"server": b.server, "messages": list})
}

func apiSelection(r *http.Request) (selection, error) {
	const usual, most = 50, 200
	sel := selection{query: r.FormValue("q"), limit: usual}
	if !searchable(sel.query) {
		return sel, invalid("q: at most 100 characters, please")
	}
	after, err := number64(r.FormValue("after"))
	if err != nil {
		return sel, invalid("after: " + err.Error())
	}
	limit, err := number64(r.FormValue("limit"))
	if err != nil || limit > most {
		return sel, invalid("limit: a number from 1 to 200, please")
	}
	if limit > 0 {
		sel.limit = int(limit)
	}
	sel.after, sel.forward = after, r.Form.Has("after")
	return sel, nil
}

// apiGet answers GET /api/messages/{id}.
func (b *board) apiGet(w http.ResponseWriter, r *http.Request) {
	m, err := b.store.get(r.Context(), r.PathValue("id"))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		b.apiError(w, http.StatusNotFound, "there is no such message")
	case err != nil:
		b.apiUnavailable(w, err)
	default:
		b.json(w, http.StatusOK, map[string]any{"server": b.server, "message": m})
	}
}

// apiPost answers POST /api/messages with {"author", "text", "id"?}. Who gives
// an id can send the same message again until it is answered 201, and it will
// be on the board once. The answer comes after the commit.
func (b *board) apiPost(w http.ResponseWriter, r *http.Request) {
	m, err := apiMessage(r)
	if err != nil {
		b.apiError(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	m.Server = b.server
	stored, err := b.store.add(r.Context(), m)
	switch {
	case errors.Is(err, errConflict):
		b.apiError(w, http.StatusConflict, err.Error())
	case err != nil:
		b.apiUnavailable(w, err)
	default:
		w.Header().Set("Location", "/api/messages/"+stored.ID)
		b.json(w, http.StatusCreated, map[string]any{"server": b.server, "id": stored.ID, "seq": stored.Seq})
	}
}

func apiMessage(r *http.Request) (message, error) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return message{}, invalid("Content-Type: application/json, please")
	}
	var in struct{ Author, Text, ID string }
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return message{}, invalid(`a JSON object with author, text and perhaps id, please: ` + err.Error())
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return message{}, invalid("one JSON object, please")
	}
	m := message{ID: in.ID, Author: in.Author, Text: in.Text}
	return m, m.clean()
}

func (b *board) apiUnavailable(w http.ResponseWriter, err error) {
	b.log.Error("answer request", "err", err)
	w.Header().Set("Retry-After", "2")
	b.apiError(w, http.StatusServiceUnavailable, "the database does not answer at this moment; try again")
}

func (b *board) apiError(w http.ResponseWriter, status int, text string) {
	b.json(w, status, map[string]any{"server": b.server, "error": text})
}

func (b *board) json(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		b.log.Error("encode answer", "err", err)
		status, data = http.StatusInternalServerError, []byte(`{"error":"internal error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}
