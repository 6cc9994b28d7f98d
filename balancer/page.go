package balancer

import (
	"fmt"
	"net/http"

	proxy "trivet/oldproxy"
)

// words is what a visitor reads when the balancer itself has to answer.
var words = map[int][2]string{
	http.StatusBadRequest:          {"Bad request", "The request could not be understood."},
	http.StatusNotFound:            {"Not found", "There is nothing here."},
	http.StatusMethodNotAllowed:    {"Method not allowed", "This method is not served here."},
	http.StatusMisdirectedRequest:  {"Unknown site", "There is no site of this name here."},
	http.StatusBadGateway:          {"That did not work", "The answer broke off. Please try again."},
	http.StatusServiceUnavailable:  {"Back in a moment", "The site cannot answer right now. Please try again in a few seconds."},
	http.StatusGatewayTimeout:      {"That took too long", "The site did not answer in time. Please try again."},
	proxy.StatusClientGone:         {"Gone", "The visitor did not wait."},
	http.StatusInternalServerError: {"Internal error", "Something went wrong."},
}

const pageText = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>%[1]s</title><style>body{font:18px/1.5 system-ui,sans-serif;max-width:32em;margin:20vh auto 0;padding:0 1em;color:#222;background:#fff}
h1{font-size:1.6em;margin:0 0 .3em}small{color:#777}@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}</style></head>
<body><h1>%[1]s</h1><p>%[2]s</p><small>%[3]d</small></body></html>
`

// page answers with a short page of the balancer's own.
func page(w http.ResponseWriter, status int) {
	text, ok := words[status]
	if !ok {
		text = words[http.StatusInternalServerError]
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, pageText, text[0], text[1], status)
}

// fail answers a request that no web server answered.
func (b *Balancer) fail(w http.ResponseWriter, r *http.Request, status int, err error) {
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "2")
	}
	x := proxy.ExchangeOf(r.Context())
	b.log.Debug("request not answered", "id", x.ID, "status", status, "backend", x.Server, "err", err)
	page(w, status)
}
