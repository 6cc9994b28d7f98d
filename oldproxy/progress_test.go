package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	proxy "trivet/oldproxy"
	"trivet/proxy/proxytest"
)

const still = 300 * time.Millisecond

// moving serves h with a limit on standing still, by HTTP/1.1 and HTTP/2.
func moving(t *testing.T, h2 bool, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(proxy.Progress(still, h))
	s.EnableHTTP2 = h2
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// eachProtocol runs f for each protocol.
func eachProtocol(t *testing.T, f func(t *testing.T, h2 bool)) {
	t.Helper()
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) { t.Parallel(); f(t, h2) })
	}
}

func TestProgressEndsBodyThatStandsStill(t *testing.T) {
	eachProtocol(t, func(t *testing.T, h2 bool) {
		ended := make(chan error, 1)
		s := moving(t, h2, func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			ended <- err
		})
		body, more := io.Pipe()
		defer func() { _ = more.Close() }()
		go func() { _, _ = more.Write([]byte("some")) }()
		go func() {
			res, err := s.Client().Post(s.URL, "text/plain", body)
			if err == nil {
				_ = res.Body.Close()
			}
		}()
		select {
		case err := <-ended:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read of the body = %v, want that its deadline is over", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the handler still waits for the body")
		}
	})
}

func TestProgressEndsAnswerThatNobodyTakes(t *testing.T) {
	eachProtocol(t, func(t *testing.T, h2 bool) {
		ended := make(chan struct{})
		s := moving(t, h2, func(w http.ResponseWriter, _ *http.Request) {
			piece := make([]byte, 32<<10)
			for {
				if _, err := w.Write(piece); err != nil {
					close(ended)
					return
				}
			}
		})
		res, err := s.Client().Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("the handler still writes")
		}
	})
}

// Whoever moves is let be, however long it takes; so is a stream in which nothing happens.
func TestProgressLetsTheSlowBe(t *testing.T) {
	eachProtocol(t, func(t *testing.T, h2 bool) {
		s := moving(t, h2, func(w http.ResponseWriter, r *http.Request) {
			got, err := io.ReadAll(r.Body)
			if err != nil {
				t.Errorf("read of the body = %v", err)
			}
			for range 3 {
				<-time.After(still * 3 / 2) // the app has nothing to say
				_, _ = w.Write(got)
				_ = http.NewResponseController(w).Flush()
			}
		})
		for range 2 { // on one connection
			body, more := io.Pipe()
			go func() {
				for range 6 {
					<-time.After(still / 3)
					_, _ = more.Write([]byte("x"))
				}
				_ = more.Close()
			}()
			res, err := s.Client().Post(s.URL, "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if want := strings.Repeat("x", 18); string(got) != want || err != nil {
				t.Errorf("answer = %q, %v, want %q", got, err, want)
			}
		}
	})
}

// A handler that answers without reading the body, or whose answer fits into
// the buffers, leaves the rest to the server: that ends, too.
func TestProgressEndsWhatTheServerStillDoes(t *testing.T) {
	t.Parallel()
	s := moving(t, false, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	c, err := tls.Dial("tcp", s.Listener.Addr().String(), s.Client().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusTeapot || !res.Close {
		t.Errorf("answer = %s, close %t, want 418 and the connection closed", res.Status, res.Close)
	}
}

func TestLimitRefusesTheNewest(t *testing.T) {
	t.Parallel()
	refused := make(chan struct{}, 100)
	limit := proxy.NewLimit(2, func() { refused <- struct{}{} })
	one, two := proxytest.Listen(t), proxytest.Listen(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 2)
	for _, l := range []net.Listener{one, two} {
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })}
		go func() { done <- proxy.Serve(ctx, srv, limit.Listener(l), time.Second) }()
	}
	first, second := keep(t, one), keep(t, two)
	if !first.asks() || !second.asks() {
		t.Fatal("the first two are not answered")
	}
	if keep(t, one).asks() || keep(t, two).asks() {
		t.Error("a third connection is answered")
	}
	if !first.asks() || !second.asks() {
		t.Error("the first two are not answered any more")
	}
	if len(refused) != 2 {
		t.Errorf("%d were told refused, want 2", len(refused))
	}
	_ = first.c.Close()
	proxytest.Until(t, "room for another", func() bool { return keep(t, two).asks() })
	stop()
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("Serve = %v", err)
		}
	}
}

// kept is one connection that is asked more than once.
type kept struct {
	c net.Conn
	r *bufio.Reader
}

func keep(t *testing.T, l net.Listener) kept {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return kept{c, bufio.NewReader(c)}
}

func (k kept) asks() bool {
	if _, err := io.WriteString(k.c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return false
	}
	res, err := http.ReadResponse(k.r, nil)
	if err != nil {
		return false
	}
	_, err = io.ReadAll(res.Body)
	return err == nil && res.StatusCode == http.StatusOK
}
