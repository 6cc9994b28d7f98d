package web

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"trivet/internal/metric"
	"trivet/internal/mtls/mtlstest"
	"trivet/internal/part"
	"trivet/proxy/proxytest"
	"trivet/proxy/upstream"
	"trivet/site"
)

const balancerRequest = " HTTP/1.1\r\nHost: www.foobar.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\nUpgrade-Insecure-Requests: 1\r\n" +
	"Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\n" +
	"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: www.foobar.com\r\n" +
	"Forwarded: for=192.0.2.7;host=\"www.foobar.com\";proto=https\r\nX-Request-Id: 4bf92f3577b34da6a3ce929d0e0e4736\r\n" +
	"X-Trivet-Client: 192.0.2.7\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n"

// BenchmarkRequest is what a balancer's request costs in a web server, but for
// TLS and the kernel.
func BenchmarkRequest(b *testing.B) {
	ca := mtlstest.New(b, "foobar")
	s := site.Default()
	s.Domain, s.App.Source = "www.foobar.com", "app"
	dir := b.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "static"), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "static", "style.css"), []byte(strings.Repeat("css\n", 100)), 0o644); err != nil {
		b.Fatal(err)
	}
	state := part.State{
		Site: &s, Server: "s1", Bundle: ca.Bundle, Identity: ca.Identity(b, "s1", part.Web),
		Release: part.Release{Hash: "r", Dir: dir},
	}
	for name, path := range map[string]string{"file": "/style.css", "app": "/page?x=1"} {
		b.Run(name, func(b *testing.B) {
			w := New(Config{Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry(), Access: io.Discard})
			if err := w.Apply(b.Context(), state); err != nil {
				b.Fatal(err)
			}
			w.pool.Set(upstream.Settings{Policy: upstream.Least, Retries: appRetries, Targets: []*upstream.Target{
				upstream.NewTarget(upstream.TargetConfig{Name: "1-1", State: upstream.Up, Dial: proxytest.Answering(
					"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 130\r\n\r\n" + strings.Repeat("x", 130))}),
			}})
			proxytest.Benchmark(b, w.forBalancers(s.Balancer, nil).Serve, "GET "+path+balancerRequest, "HTTP/1.1 200")
		})
	}
}
