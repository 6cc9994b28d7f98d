package proxy_test

import (
	"bufio"
	"net"
	"testing"
	"time"

	"trivet/proxy"
	"trivet/proxy/proxytest"
	"trivet/proxy/upstream"
)

// TestQueueTime: the time in the queue is told, and is none for who did not wait.
func TestQueueTime(t *testing.T) {
	came, goOn := make(chan struct{}, 2), make(chan struct{})
	target := raw(t, "a", func(c net.Conn, r *bufio.Reader) {
		for readRequest(r) == nil {
			came <- struct{}{}
			<-goOn
			_, _ = c.Write([]byte("HTTP/1.1 204 No Content\r\n\r\n"))
		}
	})
	pool := upstream.NewPool(upstream.PoolConfig{})
	pool.Set(upstream.Settings{Targets: targetsOf(target), InFlight: 1, Queue: 1, Patience: time.Minute})
	first, second := make(chan time.Duration, 1), make(chan time.Duration, 1)
	s := startServer(t, stand{config: proxy.Config{Handler: func(x *proxy.Exchange) {
		(&proxy.Forwarder{Pool: pool}).Forward(x)
		if string(x.Request.Path) == "/1" {
			first <- x.Times.Queue
		} else {
			second <- x.Times.Queue
		}
	}}})
	dial(t, s.address).send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
	<-came
	dial(t, s.address).send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
	proxytest.Until(t, "the second waits", func() bool { return pool.Status().Queued == 1 })
	close(goOn)
	if got := <-first; got != 0 {
		t.Errorf("queue time of the first: got %v, want 0", got)
	}
	if got := <-second; got <= 0 {
		t.Errorf("queue time of the second: got %v, want more than 0", got)
	}
}
