package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"trivet/proxy/upstream"
)

// body is one in which each place can be told from another.
func body(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		_, _ = fmt.Fprintf(&b, "%07d ", i)
	}
	return b.String()[:n]
}

// answering is a target that answers each request with text, in pieces of a
// length, and closes the connection if that is not all of it.
func answering(t *testing.T, name, text string, piece, most int) *upstream.Target {
	return raw(t, name, func(c net.Conn, r *bufio.Reader) {
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(text))
			for rest := text[:most]; len(rest) > 0; {
				n, err := io.WriteString(c, rest[:min(piece, len(rest))])
				if err != nil {
					return
				}
				rest = rest[n:]
			}
			if most < len(text) {
				return
			}
		}
	})
}

// TestHeldInKernel: an answer that the kernel holds is whole before anything of
// it is passed on, whatever pieces it comes in.
func TestHeldInKernel(t *testing.T) {
	text := body(60_000)
	for _, piece := range []int{len(text), 8000, 20} {
		t.Run(fmt.Sprintf("pieces of %d", piece), func(t *testing.T) {
			s := startServer(t, stand{targets: targetsOf(answering(t, "a", text, piece, len(text)))})
			for range 5 {
				if status, got := s.ask("GET", "/", nil); status != 200 || got != text {
					t.Errorf("got %d and %d bytes, want the %d of the answer", status, len(got), len(text))
				}
			}
			if r := s.done.last(t, 5); r.sent != int64(len(text)) {
				t.Errorf("counted %d bytes, want %d", r.sent, len(text))
			}
		})
	}
}

// TestHeldInKernelTriedAgain: a target that breaks off within such an answer is not noticed.
func TestHeldInKernelTriedAgain(t *testing.T) {
	text := body(60_000)
	s := startServer(t, stand{
		targets:  targetsOf(answering(t, "a", text, 4000, 40_000), answering(t, "b", text, 4000, len(text))),
		settings: upstream.Settings{Retries: 2, Budget: 1},
	})
	again := 0
	for n := 1; n <= 6; n++ {
		if status, got := s.ask("GET", "/", nil); status != 200 || got != text {
			t.Errorf("got %d and %d bytes, want the %d of the answer", status, len(got), len(text))
		}
		r := s.done.last(t, n)
		again += r.retries
		if r.broken {
			t.Error("the answer was broken off")
		}
	}
	if again == 0 {
		t.Error("no request was tried again: nothing was tested")
	}
}
