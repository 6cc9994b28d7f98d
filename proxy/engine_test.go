package proxy_test

import (
	"log/slog"
	"testing"
	"time"

	"trivet/proxy"
	"trivet/proxy/proxytest"
	"trivet/proxy/upstream"
	"trivet/proxy/wire"
)

// What browsers send, and what curl does.
const (
	shortRequest   = "GET /small HTTP/1.1\r\nHost: www.foobar.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
	browserRequest = "GET /some/path?query=1 HTTP/1.1\r\nHost: www.foobar.com\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\nConnection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\n" +
		"Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\nSec-Fetch-User: ?1\r\n" +
		"Cookie: session=0123456789abcdef; theme=dark\r\n\r\n"
)

func benchmarkEngine(b *testing.B, request string) {
	pool := upstream.NewPool(upstream.PoolConfig{})
	pool.Set(upstream.Settings{
		Targets: []*upstream.Target{upstream.NewTarget(upstream.TargetConfig{
			Name: "target", Dial: proxytest.Answering(answerOf(130)), State: upstream.Up,
		})},
		Retries: 2, Budget: 0.2, Timeout: time.Minute, Patience: 5 * time.Second, Queue: 1024,
	})
	proxytest.Benchmark(b, proxy.NewServer(proxy.Config{
		Log: slog.New(slog.DiscardHandler), Handler: (&proxy.Forwarder{Pool: pool}).Forward,
		Limits: wire.Limits{Target: 8 << 10, Field: 16 << 10, Head: 32 << 10, Count: 100},
		Times:  proxy.Times{Head: 10 * time.Second, Still: time.Minute, Idle: 5 * time.Minute, Rate: 256},
	}).Serve, request, "HTTP/1.1 200")
}

// The engine alone: no kernel, nothing around it.
func BenchmarkEngineShort(b *testing.B)   { benchmarkEngine(b, shortRequest) }
func BenchmarkEngineBrowser(b *testing.B) { benchmarkEngine(b, browserRequest) }
