package proxy_test

import (
	"bytes"
	"net"
	"strings"
	"testing"
)

// still is a target that answers each request without allocating.
func quietTarget(tb testing.TB, answer string) net.Listener {
	tb.Helper()
	l := listen(tb)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerAll(c, []byte(answer))
		}
	}()
	return l
}

var headEnd = []byte("\r\n\r\n")

func answerAll(c net.Conn, answer []byte) {
	defer func() { _ = c.Close() }()
	b := make([]byte, 4096)
	n := 0
	for {
		k, err := c.Read(b[n:])
		if err != nil {
			return
		}
		n += k
		if !bytes.HasSuffix(b[:n], headEnd) {
			continue
		}
		n = 0
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// benchmarkForward measures everything between a raw client and a raw target:
// neither allocates, so that what is reported is the engine's.
func benchmarkForward(b *testing.B, answer string) {
	l := quietTarget(b, answer)
	s := startServer(b, stand{targets: targetsAt(l)})
	c := dial(b, s.address)
	request := []byte("GET /some/path?query=1 HTTP/1.1\r\nHost: www.foobar.com\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n")
	room := make([]byte, len(answer)+1024)
	tail := []byte(answer[strings.Index(answer, "\r\n\r\n")+4:])
	tail = tail[max(0, len(tail)-64):]
	ask := func() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		for n := 0; ; {
			k, err := c.Read(room[n:])
			if err != nil {
				b.Fatal(err)
			}
			if n += k; n >= len(answer) && bytes.HasSuffix(room[:n], tail) {
				return
			}
		}
	}
	for range 200 {
		ask()
	}
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}

// TestForwardAllocatesNothing counts what the whole process allocates for a request.
func TestForwardAllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forget")
	}
	answer := answerOf(130)
	s := startServer(t, stand{targets: targetsAt(quietTarget(t, answer))})
	c := dial(t, s.address)
	request, room := []byte("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n"), make([]byte, 4096)
	ask := func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(answer); {
			k, err := c.Read(room)
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
	}
	for range 100 {
		ask()
	}
	if got := testing.AllocsPerRun(2000, ask); got > 0 {
		t.Errorf("allocations for a request: got %v, want 0", got)
	}
}

func answerOf(n int) string {
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Mon, 23 Nov 2026 22:00:00 GMT\r\n"
	return head + "Content-Length: " + itoa(n) + "\r\n\r\n" + strings.Repeat("x", n)
}

func BenchmarkForwardSmall(b *testing.B)   { benchmarkForward(b, answerOf(130)) }
func BenchmarkForward16k(b *testing.B)     { benchmarkForward(b, answerOf(16<<10)) }
func BenchmarkForward64k(b *testing.B)     { benchmarkForward(b, answerOf(64<<10)) }
func BenchmarkForward1M(b *testing.B)      { benchmarkForward(b, answerOf(1<<20)) }
func BenchmarkForwardNothing(b *testing.B) { benchmarkForward(b, answerOf(0)) }
