package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"trivet/proxy"
	"trivet/proxy/wire"
	"trivet/proxy/wire/hostile"
)

// seen is a request as a target read it.
type seen struct {
	method, path, host, body string
	whole                    bool
	header                   http.Header
}

// notebook is what a target saw.
type notebook struct {
	mu  sync.Mutex
	all []seen
}

func (n *notebook) list() []seen {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.all)
}

func (n *notebook) take(c net.Conn, r *bufio.Reader) {
	for {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		n.mu.Lock()
		i := len(n.all)
		n.all = append(n.all, seen{method: q.Method, path: q.RequestURI, host: q.Host, header: q.Header})
		n.mu.Unlock()
		body, err := io.ReadAll(q.Body)
		n.mu.Lock()
		n.all[i].body, n.all[i].whole = string(body), err == nil
		n.mu.Unlock()
		if err != nil {
			return
		}
		answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		if q.Method == "HEAD" {
			answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

// TestHostileRequests sends each case of the corpus to a server, and compares
// what the target and the client got.
func TestHostileRequests(t *testing.T) {
	for _, c := range hostile.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			var book notebook
			s := startServer(t, stand{
				targets: targetsOf(raw(t, "a", book.take)),
				config:  proxy.Config{Limits: wire.Limits{Target: 8 << 10, Field: 16 << 10, Head: 64 << 10, Count: 100}},
			})
			conn := dial(t, s.address)
			go func() { _, _ = conn.Write(c.Send) }() // the server may close before it has read all
			checkAnswers(t, conn, c)
			checkForwarded(t, &book, c)
		})
	}
}

// checkAnswers reads as many answers as there must be.
func checkAnswers(t *testing.T, conn *client, c hostile.Case) {
	t.Helper()
	answered := c.Forwarded
	if c.Wait && len(answered) > 0 {
		answered = answered[:len(answered)-1]
	}
	for _, f := range answered {
		if resp, _ := conn.answer(f.Method); resp.StatusCode != 200 {
			t.Fatalf("%s %s: got %d, want 200", f.Method, f.Path, resp.StatusCode)
		}
	}
	if c.Status != 0 {
		if resp, _ := conn.answer("GET"); resp.StatusCode != c.Status || !resp.Close {
			t.Errorf("refusal: got %d, close %v, want %d and a close", resp.StatusCode, resp.Close, c.Status)
		}
	}
	if c.Close && !conn.ended() {
		t.Error("the connection was not closed in an orderly way")
	}
	if !c.Close {
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if b, err := conn.r.ReadByte(); err == nil {
			t.Errorf("more came: %q", b)
		} else if err == io.EOF {
			t.Error("the connection was closed")
		}
	}
}

func checkForwarded(t *testing.T, book *notebook, c hostile.Case) {
	t.Helper()
	got := book.list()
	whole := got
	if n := len(got); n > 0 && !got[n-1].whole {
		whole = got[:n-1]
	}
	want := c.Forwarded
	if c.Wait && len(want) > len(whole) {
		want = want[:len(whole)]
	}
	if len(whole) != len(want) {
		t.Fatalf("target got %d whole requests %+v, want %d", len(whole), whole, len(want))
	}
	for i, w := range want {
		g := whole[i]
		if g.method != w.Method || g.path != w.Path || g.host != w.Host || g.body != w.Body {
			t.Errorf("request %d: got %s %s at %s with %q, want %s %s at %s with %q", i, g.method, g.path, g.host, g.body, w.Method, w.Path, w.Host, w.Body)
		}
		for _, name := range w.Without {
			if v, ok := g.header[http.CanonicalHeaderKey(name)]; ok && !strings.EqualFold(name, "connection") {
				t.Errorf("request %d: %s: %q was forwarded", i, name, v)
			}
		}
	}
}
