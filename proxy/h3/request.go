package h3

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"trivet/proxy/wire"
)

// serve answers one request of quic-go's.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	v := r.Context().Value(visitorKey{}).(*visitor)
	if !v.begin() {
		panic(http.ErrAbortHandler)
	}
	defer func() { v.end(r.Context().Err() == nil) }()
	if s.crowded() && v.many() {
		panic(http.ErrAbortHandler)
	}
	s.active.Add(1)
	defer s.active.Add(-1)

	st := newStream(s, w, r)
	if err := st.request.Check(&st.rules.Limits); err != nil {
		s.refuse(w, st.Peer(), err)
		return
	}
	if !st.length() {
		panic(http.ErrAbortHandler)
	}
	s.cfg.Handle(st)
	if !st.close() {
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) refuse(w http.ResponseWriter, peer netip.AddrPort, err error) {
	status, why := http.StatusBadRequest, "bad request"
	var e *wire.Error
	if errors.As(err, &e) {
		status, why = e.Status, e.Why
	}
	h := w.Header()
	var fields []wire.Field
	if s.cfg.Refused != nil {
		fields = s.cfg.Refused(peer, status)
	}
	setFields(h, fields, false)
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(why + "\n")) // the visitor may have gone
}

// text makes bytes of strings that share as few allocations as may be.
type text []byte

func (t *text) add(s string) []byte {
	at := len(*t)
	*t = append(*t, s...)
	return (*t)[at:len(*t):len(*t)]
}

func (t *text) lower(s string) []byte {
	b := t.add(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}

// translate makes what Check wants of r.
func translate(to *wire.Request, r *http.Request) {
	t := make(text, 0, 1024)
	to.Major = 3
	to.Method, to.Host = t.add(r.Method), t.add(r.Host)
	if r.Method != http.MethodConnect || r.Proto != "HTTP/3.0" {
		to.Scheme, to.Path = t.add("https"), t.add(r.RequestURI)
	}
	if r.Method == http.MethodConnect && r.Proto != "HTTP/3.0" {
		to.Protocol = t.add(r.Proto)
	}
	to.Fields = make([]wire.Field, 0, len(r.Header)+2)
	to.Fields = appendFields(to.Fields, &t, r.Header)
}

func appendFields(fields []wire.Field, t *text, h http.Header) []wire.Field {
	for name, values := range h {
		if len(values) == 0 {
			continue
		}
		n := t.lower(name)
		for _, v := range values {
			fields = append(fields, wire.Field{Name: n, Value: t.add(v), Kind: wire.KindOf(n)})
		}
	}
	return fields
}

// endWait is how long the end of a request is awaited that need not have a
// body, so that it counts as one without.
const endWait = time.Second

// length finds out whether a request has a body that does not say so: in
// HTTP/3 it is said by the end of the stream alone, which may come a packet
// later. false: the request broke off.
func (s *Stream) length() bool {
	if s.request.Length >= 0 || mayHaveBody(s.r.Method) {
		return true
	}
	_ = s.control.SetReadDeadline(time.Now().Add(endWait))
	defer s.control.SetReadDeadline(time.Time{}) //nolint:errcheck // it fails on a closed stream only, which Read tells
	n, err := readBody(s.r, s.ahead[:])
	switch {
	case n > 0:
		s.isAhead = true
	case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
	case isEnd(err):
		s.request.Length, s.atEnd = 0, true
	default:
		return false
	}
	return true
}

func mayHaveBody(method string) bool {
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodConnect:
		return true
	}
	return false
}

// gone calls f once the visitor does not want the answer any more.
func gone(ctx context.Context, f func()) (stop func()) {
	called := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(called)
		f()
	})
	return func() {
		if !cancel() {
			<-called
		}
	}
}

// trailerName is the key by which net/http takes a field for a trailer.
func trailerName(name []byte) string {
	return http.TrailerPrefix + http.CanonicalHeaderKey(strings.ToLower(string(name)))
}
