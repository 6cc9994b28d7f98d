package web

import (
	"bytes"
	"net/url"
	"strings"

	"trivet/proxy"
	"trivet/proxy/wire"
)

var (
	allow      = []byte("Allow")
	location   = []byte("Location")
	retryAfter = []byte("Retry-After")
	noStore    = []byte("no-store")
	plainText  = []byte("text/plain; charset=utf-8")
)

// answer is the way of a request: file, folder, app.
func (w *Web) answer(x *proxy.Exchange, v *view, app *proxy.Forwarder) {
	path, query, escaped := pathOf(x.Request.Path)
	if f := v.files.byPath[string(path)]; f != nil {
		w.answerFile(x, v, f)
		return
	}
	if v.files.folders[string(path)] && reads(x.Request) {
		redirectToFolder(x, escaped, query)
		return
	}
	switch {
	case v.hasApp:
		app.Forward(x)
	case string(path) == v.site.Balancer.Health.Path:
		answerText(x, 200, "ok")
	default:
		answerText(x, 404, "There is no such page.")
	}
}

// pathOf takes a target apart: the path as it is meant, the query, and the
// path as it is written. What cannot be read is taken as written.
func pathOf(target []byte) (path, query, escaped []byte) {
	escaped = target
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		escaped, query = target[:i], target[i:]
	}
	if bytes.IndexByte(escaped, '%') < 0 {
		return escaped, query, escaped
	}
	if meant, err := url.PathUnescape(string(escaped)); err == nil {
		return []byte(meant), query, escaped
	}
	return escaped, query, escaped
}

func reads(r *wire.Request) bool {
	m := string(r.Method)
	return m == "GET" || m == "HEAD"
}

// answerFile gives f, as far as the method allows.
func (w *Web) answerFile(x *proxy.Exchange, v *view, f *file) {
	if !reads(x.Request) {
		answerText(x, 405, "This is a file: it can only be read.", wire.Field{Name: allow, Value: []byte("GET, HEAD")})
		return
	}
	if err := v.files.serve(x, f); err != nil {
		w.log.Error("static file not served", "path", f.name, "err", err)
		answerText(x, 500, "The file could not be read.")
	}
}

// redirectToFolder adds the slash, relative to where the visitor is. Leading
// slashes are cut to one, so that the target is never another host.
func redirectToFolder(x *proxy.Exchange, escaped, query []byte) {
	to := "/" + strings.TrimLeft(string(escaped), "/") + "/" + string(query)
	x.Answer(301, []wire.Field{
		{Name: location, Value: []byte(to), Kind: wire.Location},
		{Name: cacheControl, Value: []byte("no-cache"), Kind: wire.CacheControl},
	}, nil)
}

// answerText answers with one line.
func answerText(x *proxy.Exchange, status int, line string, more ...wire.Field) {
	x.Answer(status, append([]wire.Field{
		{Name: contentType, Value: plainText, Kind: wire.ContentType},
		{Name: cacheControl, Value: noStore, Kind: wire.CacheControl},
		{Name: noSniff, Value: []byte("nosniff")},
	}, more...), []byte(line+"\n"))
}
