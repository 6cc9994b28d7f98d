package web

import (
	"net/http"
	"strings"
)

// answer is the way of a request: check, file, folder, app.
func (w *Web) answer(rw http.ResponseWriter, r *http.Request) {
	v := w.now.Load()
	if r.Header.Get(checkHeader) != "" {
		w.answerCheck(rw, r, v)
		return
	}
	if f := v.files.file(r.URL.Path); f != nil {
		w.answerFile(rw, r, v, f)
		return
	}
	if v.files.isFolder(r.URL.Path) && reads(r.Method) {
		redirectToFolder(rw, r)
		return
	}
	switch {
	case v.hasApp:
		w.app.ServeHTTP(rw, r)
	case r.URL.Path == v.site.Balancer.Health.Path:
		answerWell(rw)
	default:
		http.Error(rw, "There is no such page.", http.StatusNotFound)
	}
}

func reads(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// answerFile gives f, as far as the method allows.
func (w *Web) answerFile(rw http.ResponseWriter, r *http.Request, v *view, f *file) {
	if !reads(r.Method) {
		rw.Header().Set("Allow", "GET, HEAD")
		http.Error(rw, "This is a file: it can only be read.", http.StatusMethodNotAllowed)
		return
	}
	if err := v.files.serve(rw, r, f); err != nil {
		w.log.Error("static file not served", "path", f.name, "err", err)
		http.Error(rw, "The file could not be read.", http.StatusInternalServerError)
	}
}

// redirectToFolder adds the slash, relative to where the visitor is. Leading
// slashes are cut to one, so that the target is never another host.
func redirectToFolder(rw http.ResponseWriter, r *http.Request) {
	to := "/" + strings.TrimLeft(r.URL.EscapedPath(), "/") + "/"
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	rw.Header().Set("Location", to)
	rw.Header().Set("Cache-Control", "no-cache")
	rw.WriteHeader(http.StatusMovedPermanently)
}
