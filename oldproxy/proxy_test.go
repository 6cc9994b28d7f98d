package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	proxy "trivet/oldproxy"
	"trivet/proxy/proxytest"
)

// front is a forwarder to targets behind a real server.
func front(t *testing.T, s proxy.Settings) string {
	t.Helper()
	pool := proxy.NewPool(nil)
	pool.Set(s)
	f := proxy.NewForwarder(proxy.ForwarderConfig{
		Log: slog.New(slog.DiscardHandler), Pool: pool,
		Rewrite: func(_, _ *http.Request) {},
		Fail: func(w http.ResponseWriter, _ *http.Request, status int, err error) {
			http.Error(w, err.Error(), status)
		},
	})
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return srv.URL
}

func target(name, address string) *proxy.Target {
	return proxy.NewTarget(proxy.TargetConfig{
		Name: name, Dial: proxy.Dialer("tcp", address), IdleTimeout: time.Minute, State: proxy.Up,
	})
}

// raw is a target that treats each connection as serve says.
func raw(t *testing.T, name string, serve func(net.Conn, *bufio.Reader)) *proxy.Target {
	t.Helper()
	l := proxytest.Listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				serve(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() { _ = l.Close() })
	return target(name, l.Addr().String())
}

// readHead reads a request and its body.
func readHead(r *bufio.Reader) error {
	q, err := http.ReadRequest(r)
	if err == nil {
		_, err = io.Copy(io.Discard, q.Body)
	}
	return err
}

func well(t *testing.T, seen *atomic.Int64) *proxy.Target {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "well")
	}))
	t.Cleanup(srv.Close)
	return target("well", srv.Listener.Addr().String())
}

// ask sends a request by method and returns status and body.
func ask(t *testing.T, method, url string, body io.Reader) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// TestBrokenTarget sends safe and unsafe requests to a target that fails in
// each way, beside one that is well. The bad one is made the first choice by
// keeping the good one busier.
func TestBrokenTarget(t *testing.T) {
	answer := func(text string) func(net.Conn, *bufio.Reader) {
		return func(c net.Conn, r *bufio.Reader) {
			if readHead(r) == nil {
				_, _ = io.WriteString(c, text)
			}
		}
	}
	tests := []struct {
		name  string
		serve func(net.Conn, *bufio.Reader)
		post  int // status of a POST that met it first
	}{
		{"closes", func(net.Conn, *bufio.Reader) {}, 502},
		{"closes after the request", answer(""), 502},
		{"nonsense", answer("\x00\x01 no HTTP\r\n\r\n"), 502},
		{"half a head", answer("HTTP/1.1 200 OK\r\nContent-Le"), 502},
		{"half an answer of known length", answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), 0},
		{"half a chunked answer", answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"), 0},
		{"two lengths", answer("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 502},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, method := range []string{"GET", "POST"} {
				var seen, met atomic.Int64
				bad := raw(t, "bad", func(c net.Conn, r *bufio.Reader) { met.Add(1); tt.serve(c, r) })
				good := well(t, &seen)
				good.SetState(proxy.Unwell) // so that bad is chosen first
				url := front(t, proxy.Settings{Targets: []*proxy.Target{bad, good}, Retries: 2})
				var body io.Reader
				if method == "POST" {
					body = strings.NewReader("once")
				}
				status, text := ask(t, method, url, body)
				if met.Load() == 0 {
					t.Errorf("%s: the bad target was never asked", method)
				}
				if method == "GET" && (status != 200 || text != "well") {
					t.Errorf("GET: got %d %q, want 200 well", status, text)
				}
				if method == "POST" && (status != tt.post || seen.Load() != 0 || met.Load() != 1) {
					t.Errorf("POST: got %d %q, %d on bad, %d on good; want %d, 1, 0", status, text, met.Load(), seen.Load(), tt.post)
				}
			}
		})
	}
}

// TestRefused sends requests to a target that cannot be connected to: no
// method minds.
func TestRefused(t *testing.T) {
	l := proxytest.Listen(t)
	_ = l.Close()
	for _, method := range []string{"GET", "POST", "DELETE"} {
		var seen atomic.Int64
		dead, good := target("dead", l.Addr().String()), well(t, &seen)
		good.SetState(proxy.Unwell)
		url := front(t, proxy.Settings{Targets: []*proxy.Target{dead, good}})
		if status, text := ask(t, method, url, strings.NewReader("body")); status != 200 || seen.Load() != 1 {
			t.Errorf("%s: got %d %q, seen %d times; want 200, once", method, status, text, seen.Load())
		}
	}
}

func TestNoTarget(t *testing.T) {
	l := proxytest.Listen(t)
	_ = l.Close()
	for name, targets := range map[string][]*proxy.Target{
		"none": nil,
		"dead": {target("dead", l.Addr().String())},
	} {
		if status, _ := ask(t, "GET", front(t, proxy.Settings{Targets: targets, Retries: 2}), nil); status != 503 {
			t.Errorf("%s: got %d, want 503", name, status)
		}
	}
}

// TestEject takes back what waits on a silent target.
func TestEject(t *testing.T) {
	var seen atomic.Int64
	asked := make(chan struct{}, 2)
	silent := raw(t, "silent", func(_ net.Conn, r *bufio.Reader) {
		if readHead(r) == nil {
			asked <- struct{}{}
			_, _ = r.ReadByte() // until the connection is closed
		}
	})
	good := well(t, &seen)
	good.SetState(proxy.Unwell)
	url := front(t, proxy.Settings{Targets: []*proxy.Target{silent, good}, Retries: 1})
	got := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, method := range []string{"GET", "POST"} {
		wg.Go(func() {
			status, _ := ask(t, method, url, nil)
			mu.Lock()
			defer mu.Unlock()
			got[method] = status
		})
	}
	<-asked
	<-asked
	silent.SetState(proxy.Down)
	wg.Wait()
	if got["GET"] != 200 || got["POST"] != 502 || seen.Load() != 1 {
		t.Errorf("got %v, %d on the good one; want GET 200, POST 502, 1", got, seen.Load())
	}
	if n := silent.InFlight() + good.InFlight(); n != 0 {
		t.Errorf("in flight at the end: got %d, want 0", n)
	}
}

// TestHeadTimeout: a target that takes too long is 504, and asked once.
func TestHeadTimeout(t *testing.T) {
	var met atomic.Int64
	slow := raw(t, "slow", func(_ net.Conn, r *bufio.Reader) {
		met.Add(1)
		_ = readHead(r)
		_, _ = r.ReadByte()
	})
	url := front(t, proxy.Settings{Targets: []*proxy.Target{slow}, Retries: 2, Timeout: 50 * time.Millisecond})
	if status, _ := ask(t, "GET", url, nil); status != 504 || met.Load() != 1 {
		t.Errorf("got %d, asked %d times; want 504, once", status, met.Load())
	}
}

// TestRetryStatus: 503 to a safe request is asked for elsewhere, once; the
// app's own words come through when nobody has better ones.
func TestRetryStatus(t *testing.T) {
	sorry := func() (*proxy.Target, *atomic.Int64) {
		var n atomic.Int64
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			n.Add(1)
			http.Error(w, "the app's words", http.StatusServiceUnavailable)
		}))
		t.Cleanup(srv.Close)
		return target("sorry", srv.Listener.Addr().String()), &n
	}
	a, nA := sorry()
	b, nB := sorry()
	c, nC := sorry()
	url := front(t, proxy.Settings{Targets: []*proxy.Target{a, b, c}, Retries: 2, RetryStatus: true})
	status, text := ask(t, "GET", url, nil)
	if n := nA.Load() + nB.Load() + nC.Load(); status != 503 || text != "the app's words\n" || n != 2 {
		t.Errorf("GET: got %d %q after %d, want the app's 503 after 2", status, text, n)
	}
	status, _ = ask(t, "POST", url, strings.NewReader("x"))
	if n := nA.Load() + nB.Load() + nC.Load(); status != 503 || n != 3 {
		t.Errorf("POST: got %d after %d, want 503 after 3", status, n)
	}
}

// TestKeptAnswer: if the second target breaks, the first one's 503 counts.
func TestKeptAnswer(t *testing.T) {
	bad := raw(t, "bad", func(_ net.Conn, r *bufio.Reader) { _ = readHead(r) })
	sorry := raw(t, "sorry", func(c net.Conn, r *bufio.Reader) {
		_ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nsorry")
	})
	bad.SetState(proxy.Unwell)
	url := front(t, proxy.Settings{Targets: []*proxy.Target{sorry, bad}, Retries: 5, RetryStatus: true})
	if status, text := ask(t, "GET", url, nil); status != 503 || text != "sorry" {
		t.Errorf("got %d %q, want 503 sorry", status, text)
	}
}

// TestStream: what comes in pieces is passed on in pieces.
func TestStream(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "text/plain"} {
		next := make(chan string)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			for s := range next {
				_, _ = io.WriteString(w, s)
				_ = http.NewResponseController(w).Flush()
			}
		}))
		t.Cleanup(srv.Close)
		url := front(t, proxy.Settings{Targets: []*proxy.Target{target("a", srv.Listener.Addr().String())}})
		go func() { next <- "0\n" }()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(resp.Body)
		for i := range 4 {
			want := fmt.Sprintf("%d\n", i)
			if got, err := lines.ReadString('\n'); err != nil || got != want {
				t.Errorf("%s: got %q, %v, want %q", kind, got, err, want)
			}
			if i < 3 {
				next <- fmt.Sprintf("%d\n", i+1)
			}
		}
		close(next)
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("%s: rest: got %q, %v", kind, rest, err)
		}
		_ = resp.Body.Close()
	}
}

// TestLargeAnswer: what is longer than is held comes whole.
func TestLargeAnswer(t *testing.T) {
	for _, size := range []int{0, 1, 4096, 64<<10 - 1, 64 << 10, 64<<10 + 1, 3 << 20} {
		for _, chunked := range []bool{false, true} {
			text := strings.Repeat("0123456789abcdef", size/16+1)[:size]
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if !chunked {
					w.Header().Set("Content-Length", fmt.Sprint(size))
				} else {
					_ = http.NewResponseController(w).Flush()
				}
				_, _ = io.WriteString(w, text)
			}))
			tgt := target("a", srv.Listener.Addr().String())
			url := front(t, proxy.Settings{Targets: []*proxy.Target{tgt}})
			if status, got := ask(t, "GET", url, nil); status != 200 || got != text {
				t.Errorf("size %d chunked %v: got %d and %d bytes", size, chunked, status, len(got))
			}
			proxytest.Until(t, "nothing in flight", func() bool { return tgt.InFlight() == 0 })
			srv.Close()
		}
	}
}

// TestClientBody: a client's broken chunk is its own fault.
func TestClientBody(t *testing.T) {
	var seen atomic.Int64
	url := front(t, proxy.Settings{Targets: []*proxy.Target{well(t, &seen)}})
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 400 {
		t.Errorf("got %d, want 400", resp.StatusCode)
	}
}

// TestLeastRequests: of two targets the less busy one is chosen.
func TestLeastRequests(t *testing.T) {
	hold := make(chan struct{})
	var seen atomic.Int64
	busy := raw(t, "busy", func(c net.Conn, r *bufio.Reader) {
		_ = readHead(r)
		<-hold
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbusy")
	})
	free := well(t, &seen)
	free.SetState(proxy.Down)
	url := front(t, proxy.Settings{Targets: []*proxy.Target{busy, free}})
	var wg sync.WaitGroup
	wg.Go(func() { ask(t, "GET", url, nil) })
	proxytest.Until(t, "busy has a request", func() bool { return busy.InFlight() == 1 })
	free.SetState(proxy.Up)
	for range 10 {
		ask(t, "GET", url, nil)
	}
	close(hold)
	wg.Wait()
	if seen.Load() != 10 {
		t.Errorf("free got %d requests, want 10", seen.Load())
	}
}

// TestServeDrains: a request that is under way is answered, then Serve returns.
func TestServeDrains(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	began, finish := make(chan struct{}), make(chan struct{})
	l := proxytest.Listen(t)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-finish
		_, _ = io.WriteString(w, "done")
	})}
	served := make(chan error, 1)
	go func() { served <- proxy.Serve(ctx, srv, l, 10*time.Second) }()
	got := make(chan string, 1)
	go func() {
		_, text := ask(t, "GET", "http://"+l.Addr().String(), nil)
		got <- text
	}()
	<-began
	stop()
	proxytest.Until(t, "listener closed", func() bool {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(finish)
	if text := <-got; text != "done" {
		t.Errorf("got %q, want done", text)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestStatusOf(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		ctx  context.Context
		err  error
		want int
	}{
		{t.Context(), errors.Join(proxy.ErrNoTarget, io.EOF), 503},
		{t.Context(), proxy.ErrHeadTimeout, 504},
		{t.Context(), io.EOF, 502},
		{t.Context(), errors.Join(proxy.ErrClientBody, io.EOF), 400},
		{gone, io.EOF, 499},
	} {
		if got := proxy.StatusOf(tt.ctx, tt.err); got != tt.want {
			t.Errorf("%v: got %d, want %d", tt.err, got, tt.want)
		}
	}
}
