package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"trivet/proxy"
	"trivet/proxy/proxytest"
	"trivet/proxy/upstream"
	"trivet/proxy/wire"
)

func well(t *testing.T, seen *atomic.Int64) *upstream.Target {
	return web(t, "well", func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "well")
	})
}

// says is a target that reads a request and sends text.
func says(text string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		if readRequest(r) == nil {
			_, _ = io.WriteString(c, text)
		}
	}
}

// TestBrokenTarget sends safe and unsafe requests to a target that fails in
// each way, beside one that is well and the second choice.
func TestBrokenTarget(t *testing.T) {
	tests := []struct {
		name  string
		serve func(net.Conn, *bufio.Reader)
		post  int // status of a POST that met it first
	}{
		{"closes", func(net.Conn, *bufio.Reader) {}, 502},
		{"closes after the request", says(""), 502},
		{"nonsense", says("\x00\x01 no HTTP\r\n\r\n"), 502},
		{"half a head", says("HTTP/1.1 200 OK\r\nContent-Le"), 502},
		{"half an answer of known length", says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), 0},
		{"half a chunked answer", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"), 0},
		{"a bad chunk", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhalf\r\n"), 502},
		{"two lengths", says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), 502},
		{"switches protocols unasked", says("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), 502},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, method := range []string{"GET", "POST"} {
				var seen, met atomic.Int64
				bad := raw(t, "bad", func(c net.Conn, r *bufio.Reader) { met.Add(1); tt.serve(c, r) })
				good := well(t, &seen)
				good.SetState(upstream.Unwell, "test") // so that bad is chosen first
				s := startServer(t, stand{targets: targetsOf(bad, good), settings: upstream.Settings{Retries: 2}})
				var body io.Reader
				if method == "POST" {
					body = strings.NewReader("once")
				}
				status, text := s.ask(method, "/", body)
				if met.Load() == 0 {
					t.Errorf("%s: the bad target was never asked", method)
				}
				if method == "GET" && (status != 200 || text != "well") {
					t.Errorf("GET: got %d %q, want 200 well", status, text)
				}
				if method == "POST" && (status != tt.post || seen.Load() != 0 || met.Load() != 1) {
					t.Errorf("POST: got %d %q, %d on bad, %d on good; want %d, 1, 0", status, text, met.Load(), seen.Load(), tt.post)
				}
				if n := bad.InFlight() + good.InFlight(); n != 0 {
					t.Errorf("%s: in flight at the end: got %d, want 0", method, n)
				}
			}
		})
	}
}

// TestRefused sends requests to a target that cannot be connected to: no method minds.
func TestRefused(t *testing.T) {
	l := listen(t)
	_ = l.Close()
	for _, method := range []string{"GET", "POST", "DELETE"} {
		for _, size := range []int{4, 100_000} {
			var seen atomic.Int64
			dead, good := newTarget("dead", l.Addr().String()), well(t, &seen)
			good.SetState(upstream.Unwell, "test")
			s := startServer(t, stand{targets: targetsOf(dead, good)})
			if status, text := s.ask(method, "/", strings.NewReader(strings.Repeat("x", size))); status != 200 || seen.Load() != 1 {
				t.Errorf("%s of %d: got %d %q, seen %d times; want 200, once", method, size, status, text, seen.Load())
			}
		}
	}
}

// TestStaleConnection: a kept connection that the target has closed costs nobody anything.
func TestStaleConnection(t *testing.T) {
	var seen atomic.Int64
	once := raw(t, "once", func(c net.Conn, r *bufio.Reader) {
		if readRequest(r) == nil {
			seen.Add(1)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	s := startServer(t, stand{targets: targetsOf(once), settings: upstream.Settings{Retries: 2}})
	for i := range 20 {
		method := []string{"GET", "POST"}[i%2]
		if status, text := s.ask(method, "/", strings.NewReader("")); status != 200 {
			// The end of the connection may not have come when the next request took it.
			if method == "POST" && status == 502 {
				continue
			}
			t.Fatalf("%s %d: got %d %q, want 200", method, i, status, text)
		}
	}
}

func TestNoTarget(t *testing.T) {
	l := listen(t)
	_ = l.Close()
	for name, targets := range map[string][]*upstream.Target{
		"none": nil,
		"dead": {newTarget("dead", l.Addr().String())},
	} {
		s := startServer(t, stand{targets: targets, settings: upstream.Settings{Retries: 2}})
		if status, _ := s.ask("GET", "/", nil); status != 503 {
			t.Errorf("%s: got %d, want 503", name, status)
		}
	}
}

// TestPatience: a request waits for a target to come.
func TestPatience(t *testing.T) {
	var seen atomic.Int64
	late := well(t, &seen)
	late.SetState(upstream.Down, "test")
	s := startServer(t, stand{targets: targetsOf(late), settings: upstream.Settings{Patience: 10 * time.Second}})
	timer := time.AfterFunc(50*time.Millisecond, func() { late.SetState(upstream.Up, "test") })
	defer timer.Stop()
	if status, text := s.ask("POST", "/", strings.NewReader("x")); status != 200 || text != "well" {
		t.Errorf("got %d %q, want 200 well", status, text)
	}
}

// TestEject takes back what waits on a silent target.
func TestEject(t *testing.T) {
	var seen atomic.Int64
	asked := make(chan struct{}, 2)
	silent := raw(t, "silent", func(_ net.Conn, r *bufio.Reader) {
		if readRequest(r) == nil {
			asked <- struct{}{}
			_, _ = r.ReadByte() // until the connection is closed
		}
	})
	good := well(t, &seen)
	good.SetState(upstream.Unwell, "test")
	s := startServer(t, stand{targets: targetsOf(silent, good), settings: upstream.Settings{Retries: 1}})
	got := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, method := range []string{"GET", "POST"} {
		wg.Go(func() {
			status, _ := s.ask(method, "/", nil)
			mu.Lock()
			defer mu.Unlock()
			got[method] = status
		})
	}
	<-asked
	<-asked
	silent.SetState(upstream.Down, "test")
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
		_ = readRequest(r)
		_, _ = r.ReadByte()
	})
	s := startServer(t, stand{targets: targetsOf(slow), settings: upstream.Settings{Retries: 2, Timeout: 50 * time.Millisecond}})
	if status, _ := s.ask("GET", "/", nil); status != 504 || met.Load() != 1 {
		t.Errorf("got %d, asked %d times; want 504, once", status, met.Load())
	}
	if status, _ := s.ask("POST", "/", strings.NewReader(strings.Repeat("x", 100_000))); status != 504 || met.Load() != 2 {
		t.Errorf("large POST: got %d, asked %d times; want 504, once more", status, met.Load())
	}
}

// TestRetryStatus: 503 to a safe request is asked for elsewhere, once; the
// app's own words come through when nobody has better ones.
func TestRetryStatus(t *testing.T) {
	var n atomic.Int64
	sorry := func(name string) *upstream.Target {
		return web(t, name, func(w http.ResponseWriter, _ *http.Request) {
			n.Add(1)
			http.Error(w, "the app's words", http.StatusServiceUnavailable)
		})
	}
	s := startServer(t, stand{targets: targetsOf(sorry("a"), sorry("b"), sorry("c")), settings: upstream.Settings{Retries: 2, RetryStatus: true}})
	if status, text := s.ask("GET", "/", nil); status != 503 || text != "the app's words\n" || n.Load() != 2 {
		t.Errorf("GET: got %d %q after %d, want the app's 503 after 2", status, text, n.Load())
	}
	if status, _ := s.ask("POST", "/", strings.NewReader("x")); status != 503 || n.Load() != 3 {
		t.Errorf("POST: got %d after %d, want 503 after 3", status, n.Load())
	}
}

// TestKeptAnswer: if the second target breaks, the first one's 503 counts.
func TestKeptAnswer(t *testing.T) {
	bad := raw(t, "bad", says(""))
	sorry := raw(t, "sorry", says("HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nsorry"))
	bad.SetState(upstream.Unwell, "test")
	s := startServer(t, stand{targets: targetsOf(sorry, bad), settings: upstream.Settings{Retries: 5, RetryStatus: true}})
	if status, text := s.ask("GET", "/", nil); status != 503 || text != "sorry" {
		t.Errorf("got %d %q, want 503 sorry", status, text)
	}
	if r := s.done.last(t, 1); r.target != "sorry" {
		t.Errorf("answered by %q, want sorry", r.target)
	}
}

// TestStream: what comes in pieces is passed on in pieces.
func TestStream(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "text/plain"} {
		next := make(chan string)
		s := startServer(t, stand{targets: targetsOf(web(t, "a", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			for s := range next {
				_, _ = io.WriteString(w, s)
				_ = http.NewResponseController(w).Flush()
			}
		}))})
		go func() { next <- "0\n" }()
		resp, err := http.Get("http://" + s.address)
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

// TestAnswerSizes: every length comes whole, by each framing, and the
// connection is used again.
func TestAnswerSizes(t *testing.T) {
	var opened atomic.Int64
	text := strings.Repeat("0123456789abcdef", 3<<16)
	target := raw(t, "a", func(c net.Conn, r *bufio.Reader) {
		opened.Add(1)
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			var size int
			_, _ = fmt.Sscanf(q.URL.Path, "/%d", &size)
			switch q.URL.RawQuery {
			case "length":
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, text[:size])
			case "chunks":
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
				for rest := text[:size]; len(rest) > 0; {
					n := min(len(rest), 30_000)
					_, _ = fmt.Fprintf(c, "%x;ext=1\r\n%s\r\n", n, rest[:n])
					rest = rest[n:]
				}
				_, _ = io.WriteString(c, "0\r\nX-Sum: 7\r\n\r\n")
			case "close":
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\n\r\n%s", text[:size])
				return
			}
		}
	})
	s := startServer(t, stand{targets: targetsOf(target)})
	c := dial(t, s.address)
	for _, size := range []int{0, 1, 100, 3900, 4096, 16 << 10, 60_000, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_000, 3 << 20} {
		for _, framing := range []string{"length", "chunks", "close"} {
			c.send(fmt.Sprintf("GET /%d?%s HTTP/1.1\r\nHost: a\r\n\r\n", size, framing))
			resp, got := c.answer("GET")
			if resp.StatusCode != 200 || got != text[:size] {
				t.Errorf("%d by %s: got %d and %d bytes", size, framing, resp.StatusCode, len(got))
			}
			if framing == "chunks" && resp.Trailer.Get("X-Sum") != "7" {
				t.Errorf("%d by chunks: got trailer %v", size, resp.Trailer)
			}
		}
	}
	proxytest.Until(t, "nothing in flight", func() bool { return target.InFlight() == 0 })
	if n := opened.Load(); n != 12 {
		t.Errorf("connections to the target: got %d, want 12: one for each that closed", n)
	}
}

// TestBodies: every request's body comes whole, by each framing, with its trailer.
func TestBodies(t *testing.T) {
	s := startServer(t, stand{targets: targetsOf(web(t, "a", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%d %v %v %d %s", len(b), err, r.TransferEncoding, r.ContentLength, r.Trailer.Get("X-Sum"))
		if claim := r.Trailer.Get("X-Forwarded-For"); claim != "" {
			t.Errorf("a trailer claims to come from %s", claim)
		}
	}))})
	c := dial(t, s.address)
	for _, size := range []int{0, 1, 3000, 16 << 10, 16<<10 + 1, 100_000, 1 << 20} {
		body := strings.Repeat("y", size)
		c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", size, body))
		want := fmt.Sprintf("%d <nil> [] %d ", size, size)
		if resp, got := c.answer("POST"); resp.StatusCode != 200 || got != want {
			t.Errorf("%d with a length: got %d %q, want %q", size, resp.StatusCode, got, want)
		}
		c.send("POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n")
		for rest := body; len(rest) > 0; {
			n := min(len(rest), 7000)
			c.send(fmt.Sprintf("%x\r\n%s\r\n", n, rest[:n]))
			rest = rest[n:]
		}
		c.send("0\r\nX-Sum: 9\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
		want = fmt.Sprintf("%d <nil> [chunked] -1 ", size)
		if resp, got := c.answer("POST"); resp.StatusCode != 200 || !strings.HasPrefix(got, want) {
			t.Errorf("%d in chunks: got %d %q, want %q", size, resp.StatusCode, got, want)
		}
	}
}

// TestPanic: what panics in the middle of an exchange leaves nothing behind.
func TestPanic(t *testing.T) {
	target := raw(t, "a", func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nsome")
			<-t.Context().Done()
		}
	})
	s := startServer(t, stand{targets: targetsOf(target), before: func(x *proxy.Exchange) bool {
		x.Stamp = func(*proxy.Exchange) { panic("test") }
		return true
	}})
	c := dial(t, s.address)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome")
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("got an answer, want the end")
	}
	s.done.last(t, 1)
	if n := target.InFlight(); n != 0 || s.pool.InFlight() != 0 {
		t.Errorf("in flight: %d at the target, %d in the pool, want none", n, s.pool.InFlight())
	}
}

// TestRefusedAreNamed: what cannot be understood has an ID, in its answer and for the log.
func TestRefusedAreNamed(t *testing.T) {
	st := stand{}
	st.config.Name = func(x *proxy.Exchange) {
		x.Out = append(x.Out, wire.Field{Name: []byte("X-Request-Id"), Value: []byte("id of " + x.Peer.Addr().String())})
	}
	s := startServer(t, st)
	for text, want := range map[string]int{"GET / HTTP/1.1\r\n\r\n": 400, "GET / HTTP/3.0\r\nHost: a\r\n\r\n": 505} {
		c := dial(t, s.address)
		c.send(text)
		if resp, _ := c.answer("GET"); resp.StatusCode != want || resp.Header.Get("X-Request-Id") != "id of 127.0.0.1" {
			t.Errorf("%q: got %d, ID %q, want %d and one", text, resp.StatusCode, resp.Header.Get("X-Request-Id"), want)
		}
	}
}
