package edge

import (
	"html"
	"strconv"
	"strings"

	"trivet/proxy"
	"trivet/proxy/wire"
)

// words are what a visitor reads when no server of the site answers.
var words = map[int][2]string{
	400: {"Bad request", "The request could not be understood."},
	404: {"Not found", "There is nothing here."},
	405: {"Method not allowed", "This method is not served here."},
	408: {"Too slow", "The request did not come in time."},
	413: {"Too large", "That is more than this site takes."},
	421: {"Unknown site", "There is no site of this name here."},
	429: {"Too many requests", "Please try again in a moment."},
	500: {"Internal error", "Something went wrong."},
	502: {"That did not work", "The answer broke off. Please try again."},
	503: {"Back in a moment", "The site cannot answer right now. Please try again in a few seconds."},
	504: {"That took too long", "The site did not answer in time. Please try again."},
}

const shape = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>%TITLE%</title><style>body{font:18px/1.5 system-ui,sans-serif;max-width:32em;margin:20vh auto 0;padding:0 1em;color:#222;background:#fff}
h1{font-size:1.6em;margin:0 0 .3em}small{color:#777}@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}</style></head>
<body><h1>%TITLE%</h1><p>%TEXT%</p><small>%STATUS%</small></body></html>
`

// pages are made once, so that a flood of bad requests costs little.
var pages = func() map[int][]byte {
	all := map[int][]byte{}
	for status, w := range words {
		all[status] = makePage(status, w[0], w[1])
	}
	return all
}()

func makePage(status int, title, text string) []byte {
	return []byte(strings.NewReplacer("%TITLE%", html.EscapeString(title), "%TEXT%", html.EscapeString(text),
		"%STATUS%", strconv.Itoa(status)).Replace(shape))
}

func maintenancePage(text string) []byte {
	if text == "" {
		text = "This site is being worked on. Please come back soon."
	}
	return makePage(503, "Planned work", text)
}

// Page answers with a short page of trivet's own.
func Page(x *proxy.Exchange, status int) {
	page := pages[status]
	if page == nil {
		page = pages[500]
	}
	switch status {
	case 405:
		answer(x, status, page, wire.Field{Name: allow, Value: methods})
	case 503:
		answer(x, status, page, wire.Field{Name: retryAfter, Value: []byte("2"), Kind: wire.RetryAfter})
	default:
		answer(x, status, page)
	}
}

func answer(x *proxy.Exchange, status int, page []byte, more ...wire.Field) {
	x.Answer(status, append([]wire.Field{
		{Name: contentType, Value: []byte("text/html; charset=utf-8"), Kind: wire.ContentType},
		{Name: cacheControl, Value: []byte("no-store"), Kind: wire.CacheControl},
		{Name: noSniff, Value: []byte("nosniff")},
	}, more...), page)
}
