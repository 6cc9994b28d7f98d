package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"trivet/proxy/upstream"
)

// poisoned is a target that answers /first by head and then sends a body that
// nobody asked for: when told to, or after the next request on the connection.
func poisoned(t *testing.T, head string, late bool, send, sent chan bool) *upstream.Target {
	return raw(t, "a", func(c net.Conn, r *bufio.Reader) {
		for first := false; ; {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if first && late {
				_, _ = io.WriteString(c, poison)
			}
			text := "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"
			if first = q.URL.Path == "/first"; first {
				text = head
			}
			_, _ = io.WriteString(c, text)
			if first && !late {
				<-send
				_, _ = io.WriteString(c, poison)
				sent <- true
			}
		}
	})
}

const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"

// TestPoison: what a target sends beyond its answer is nobody's answer.
func TestPoison(t *testing.T) {
	tests := []struct {
		name, method, head string
		late               bool
	}{
		{"after HEAD, at once", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", false},
		{"after HEAD, late", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", true},
		{"after HEAD without a length, late", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", true},
		{"after 204, at once", "GET", "HTTP/1.1 204 No Content\r\n\r\n", false},
		{"after 204, late", "GET", "HTTP/1.1 204 No Content\r\n\r\n", true},
		{"after 304, late", "GET", "HTTP/1.1 304 Not Modified\r\n\r\n", true},
		{"beyond a length, at once", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
		{"beyond the last chunk, at once", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			send, sent := make(chan bool, 1), make(chan bool, 1)
			s := startServer(t, stand{targets: targetsOf(poisoned(t, tt.head, tt.late, send, sent))})
			s.ask(tt.method, "/first", nil)
			if !tt.late {
				send <- true
				<-sent
			}
			if status, got := s.ask("GET", "/second", nil); status != 200 || got != "true" {
				t.Errorf("got %d %q, want the answer to the second request", status, got)
			}
		})
	}
}
