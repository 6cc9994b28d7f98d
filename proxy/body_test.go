package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"trivet/proxy"
	"trivet/proxy/proxytest"
)

func TestExpect(t *testing.T) {
	s := startServer(t, by(func(x *proxy.Exchange) {
		if string(x.Request.Path) == "/refuse" {
			x.Answer(403, nil, nil)
			return
		}
		b, err := io.ReadAll(readerOf(x))
		x.Answer(200, nil, fmt.Appendf(nil, "%s %v", b, err))
	}))
	c := dial(t, s.address)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	if resp, _ := c.answer("POST"); resp.StatusCode != 100 {
		t.Fatalf("got %d, want 100", resp.StatusCode)
	}
	c.send("body")
	if resp, got := c.answer("POST"); resp.StatusCode != 200 || got != "body <nil>" {
		t.Errorf("got %d %q, want 200 body", resp.StatusCode, got)
	}
	c.send("POST /refuse HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	if resp, _ := c.answer("POST"); resp.StatusCode != 403 || !resp.Close {
		t.Errorf("got %d, close %v, want 403 and a close", resp.StatusCode, resp.Close)
	}
	if !c.ended() {
		t.Error("the connection goes on, though a body may come or not")
	}
}

// readerOf reads x's body.
func readerOf(x *proxy.Exchange) io.Reader { return readFunc(x.Read) }

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestSlowBody(t *testing.T) {
	var seen atomic.Int64
	st := stand{targets: targetsOf(well(t, &seen))}
	st.config.Times = times(time.Second, 200*time.Millisecond, 0)
	s := startServer(t, st)
	for _, length := range []string{"Content-Length: 100", "Content-Length: 100000", "Transfer-Encoding: chunked"} {
		c := dial(t, s.address)
		c.send("POST / HTTP/1.1\r\nHost: a\r\n" + length + "\r\n\r\n4")
		if resp, _ := c.answer("POST"); resp.StatusCode != 408 || !c.ended() {
			t.Errorf("%s: got %d, want 408 and the end", length, resp.StatusCode)
		}
	}
}

// TestDrippingBody: a body that comes steadily, but below the rate, is not waited for.
func TestDrippingBody(t *testing.T) {
	t.Parallel() // its rate is measured over seconds
	var seen atomic.Int64
	st := stand{targets: targetsOf(well(t, &seen))}
	st.config.Times = times(time.Second, 10*time.Second, 1000)
	s := startServer(t, st)
	for _, framing := range []string{"Content-Length: 100000", "Transfer-Encoding: chunked"} {
		t.Run(framing, func(t *testing.T) {
			t.Parallel()
			c := dial(t, s.address)
			c.send("POST / HTTP/1.1\r\nHost: a\r\n" + framing + "\r\n\r\n186a0\r\n")
			go func() {
				for range time.Tick(50 * time.Millisecond) {
					if _, err := io.WriteString(c, "x"); err != nil {
						return
					}
				}
			}()
			if resp, _ := c.answer("POST"); resp.StatusCode != 408 {
				t.Errorf("got %d, want 408", resp.StatusCode)
			}
		})
	}
}

func TestTooLarge(t *testing.T) {
	var seen atomic.Int64
	st := stand{targets: targetsOf(well(t, &seen))}
	st.config.MaxBody = 50_000
	s := startServer(t, st)
	c := dial(t, s.address)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
	if resp, _ := c.answer("POST"); resp.StatusCode != 413 {
		t.Errorf("declared: got %d, want 413", resp.StatusCode)
	}
	c = dial(t, s.address)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nea60\r\n" + strings.Repeat("x", 60000))
	if resp, _ := c.answer("POST"); resp.StatusCode != 413 {
		t.Errorf("in chunks: got %d, want 413", resp.StatusCode)
	}
}

// TestEarlyAnswer: a target that answers before it has the whole request.
func TestEarlyAnswer(t *testing.T) {
	target := raw(t, "a", func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 413 No\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlong")
		}
	})
	s := startServer(t, stand{targets: targetsOf(target)})
	c := dial(t, s.address)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome")
	if resp, body := c.answer("POST"); resp.StatusCode != 413 || body != "long" || !resp.Close {
		t.Errorf("got %d %q, close %v, want the target's 413 and a close", resp.StatusCode, body, resp.Close)
	}
	proxytest.Until(t, "nothing in flight", func() bool { return s.pool.InFlight() == 0 })
}

// TestDuplex: answer and request flow side by side.
func TestDuplex(t *testing.T) {
	target := raw(t, "a", func(c net.Conn, r *bufio.Reader) {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		b := make([]byte, 100)
		for {
			n, err := q.Body.Read(b)
			if n > 0 {
				_, _ = fmt.Fprintf(c, "%x\r\n%s\r\n", n, b[:n])
			}
			if err != nil {
				_, _ = io.WriteString(c, "0\r\n\r\n")
				return
			}
		}
	})
	s := startServer(t, stand{targets: targetsOf(target)})
	c := dial(t, s.address)
	c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		word := fmt.Sprintf("word %d", i)
		c.send(fmt.Sprintf("%x\r\n%s\r\n", len(word), word))
		got := make([]byte, len(word))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != word {
			t.Fatalf("got %q, %v, want %q", got, err, word)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("rest: %q, %v", rest, err)
	}
}

// TestStuckTarget: a target that has answered and takes nothing more of a large request.
func TestStuckTarget(t *testing.T) {
	target := raw(t, "a", func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			<-t.Context().Done()
		}
	})
	s := startServer(t, stand{targets: targetsOf(target)})
	c := dial(t, s.address)
	go func() {
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
		_, _ = io.CopyN(c, zeros{}, 100_000_000)
	}()
	if resp, body := c.answer("POST"); resp.StatusCode != 200 || body != "ok" {
		t.Errorf("got %d %q, want 200 ok", resp.StatusCode, body)
	}
	proxytest.Until(t, "nothing in flight", func() bool { return s.pool.InFlight() == 0 })
}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type readFunc func([]byte) (int, error)

type zeros struct{}
