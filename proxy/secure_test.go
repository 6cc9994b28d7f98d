package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
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
)

// secure is a server and a client's configuration for it.
func secure(t testing.TB, st stand) (*served, *tls.Config) {
	t.Helper()
	srv, ca := selfSigned(t)
	srv.NextProtos = []string{"h2", "http/1.1"}
	st.tls, st.config.HTTP2 = srv, true
	return startServer(t, st), &tls.Config{RootCAs: ca, ServerName: "www.foobar.com"}
}

// TestSecure: both versions over TLS, parked between two requests.
func TestSecure(t *testing.T) {
	var seen atomic.Int64
	s, cfg := secure(t, stand{targets: targetsOf(well(t, &seen))})
	for _, h2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: h2}
		defer tr.CloseIdleConnections()
		for round := range 3 {
			for _, body := range []string{"", "small", strings.Repeat("x", 300_000)} {
				resp, err := (&http.Client{Transport: tr}).Post("https://"+s.address, "text/plain", strings.NewReader(body))
				if err != nil {
					t.Fatalf("h2 %v: %v", h2, err)
				}
				got, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if string(got) != "well" || err != nil || (resp.ProtoMajor == 2) != h2 {
					t.Errorf("h2 %v: got %q, %v by %s", h2, got, err, resp.Proto)
				}
			}
			if round == 0 {
				proxytest.Until(t, "parked", func() bool { return s.server.Stats().Active == 0 })
			}
		}
	}
}

// TestSecureSizes: every length comes whole by TLS, with a client that sends in parts.
func TestSecureSizes(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 1<<16)
	s, cfg := secure(t, stand{targets: targetsOf(web(t, "a", func(w http.ResponseWriter, r *http.Request) {
		var size int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &size)
		if r.URL.RawQuery == "" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		_, _ = io.WriteString(w, text[:size])
	}))})
	for _, h2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: h2}
		defer tr.CloseIdleConnections()
		for _, size := range []int{0, 1, 4000, 16_000, 17_000, 65_536, 70_000, 1_000_000} {
			for _, query := range []string{"", "?chunked"} {
				resp, err := (&http.Client{Transport: tr}).Get(fmt.Sprintf("https://%s/%d%s", s.address, size, query))
				if err != nil {
					t.Fatalf("h2 %v: %v", h2, err)
				}
				got, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if string(got) != text[:size] || err != nil {
					t.Errorf("h2 %v, %d%s: got %d bytes, %v", h2, size, query, len(got), err)
				}
			}
		}
	}
}

// TestSecureDrain: HTTP/2 requests under way are answered.
func TestSecureDrain(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	st := by(func(x *proxy.Exchange) {
		close(began)
		<-finish
		ok(x)
	})
	s, cfg := secure(t, st)
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	got := make(chan string, 1)
	go func() {
		resp, err := (&http.Client{Transport: tr}).Get("https://" + s.address)
		if err != nil {
			got <- err.Error()
			return
		}
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	<-began
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	proxytest.Until(t, "the server drains", func() bool { return !accepts(s.address) })
	close(finish)
	if text := <-got; text != "ok" {
		t.Errorf("got %q, want ok", text)
	}
	<-stopped
}

// TestHandshakesWhileDraining: connections that have just become HTTP/2, and
// their server that tells all to end, do not wait for each other.
func TestHandshakesWhileDraining(t *testing.T) {
	s, cfg := secure(t, by(ok))
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"h2"}
	var visitors sync.WaitGroup
	for range 4 {
		visitors.Go(func() {
			for range 100 {
				c, err := tls.Dial("tcp", s.address, cfg)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.Close()
			}
		})
	}
	done := make(chan struct{})
	go func() { visitors.Wait(); close(done) }()
	for over := false; !over; {
		told := make(chan struct{})
		go func() { s.server.TellAll(); close(told) }()
		select {
		case <-told:
		case <-time.After(20 * time.Second):
			t.Fatal("the server waits for its connections, and they for it")
		}
		select {
		case <-done:
			over = true
		default:
		}
	}
}

// TestHTTP2Gone: a stream that is reset frees its target.
func TestHTTP2Gone(t *testing.T) {
	asked, freed := make(chan struct{}), make(chan struct{})
	s, cfg := secure(t, stand{targets: targetsOf(raw(t, "silent", func(_ net.Conn, r *bufio.Reader) {
		_ = readRequest(r)
		close(asked)
		_, _ = r.ReadByte()
		close(freed)
	}))})
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, "GET", "https://"+s.address, nil)
	go func() { _, _ = tr.RoundTrip(r) }()
	<-asked
	cancel()
	select {
	case <-freed:
	case <-time.After(10 * time.Second):
		t.Fatal("the target is still waited for")
	}
	if r := s.done.last(t, 1); r.status != proxy.StatusClientGone {
		t.Errorf("got %+v, want 499", r)
	}
}

// TestHTTP2Duplex: answer and request flow side by side.
func TestHTTP2Duplex(t *testing.T) {
	s, cfg := secure(t, stand{targets: targetsOf(web(t, "echo", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			_, _ = w.Write(b[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
	}))})
	tr := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	body, more := io.Pipe()
	r, _ := http.NewRequestWithContext(t.Context(), "POST", "https://"+s.address, body)
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		word := fmt.Sprintf("word %d", i)
		_, _ = io.WriteString(more, word)
		got := make([]byte, len(word))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != word {
			t.Fatalf("got %q, %v, want %q", got, err, word)
		}
	}
	_ = more.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 || resp.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("rest: %q, %v, trailer %v", rest, err, resp.Trailer)
	}
}
