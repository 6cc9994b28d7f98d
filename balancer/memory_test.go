package balancer

import (
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"trivet/internal/metric"
	"trivet/proxy/access"
	"trivet/proxy/edge"
	"trivet/proxy/proxytest"
	"trivet/proxy/upstream"
	"trivet/site"
)

const (
	browserRequest = "GET /some/path?query=1 HTTP/1.1\r\nHost: www.foobar.com\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\nUpgrade-Insecure-Requests: 1\r\n" +
		"Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\n\r\n"
	webAnswer = "HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 22:00:00 GMT\r\nContent-Type: text/html; charset=utf-8\r\n" +
		"Cache-Control: no-cache\r\nX-Served-By: s1\r\nContent-Length: 130\r\n\r\n"
)

// BenchmarkRequest is what a request costs in a balancer, but for TLS and the
// kernel: the engine with all that the balancer does around it.
func BenchmarkRequest(b *testing.B) {
	s := site.Default()
	s.Domain, s.Balancer.HSTS = "www.foobar.com", site.Duration(time.Hour)
	for _, form := range []string{"json", "combined", "off"} {
		b.Run(form, func(b *testing.B) {
			k := New(Config{Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry(), Access: io.Discard})
			k.now.Store(&view{site: &s, rules: edge.New(&s, `h3=":443"; ma=86400`), form: access.FormOf(form)})
			set := settings(s.Balancer)
			for _, name := range []string{"s1", "s2", "s3"} {
				set.Targets = append(set.Targets, upstream.NewTarget(upstream.TargetConfig{
					Name: name, State: upstream.Up, Dial: proxytest.Answering(webAnswer + strings.Repeat("x", 130)),
				}))
			}
			k.pool.Set(set)
			proxytest.Benchmark(b, k.server(s.Balancer, k.answer, nil).Serve, browserRequest, "HTTP/1.1 200")
		})
	}
}
