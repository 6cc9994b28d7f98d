package h2

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"trivet/proxy/wire"
)

// bench is a server of one Config on a loopback port.
type bench struct {
	t    testing.TB
	addr string
	mu   sync.Mutex
	all  []*Conn
	errs chan error // what Serve returned, but for idle
	idle chan struct{}
}

// listen serves cfg until the test ends. An idle connection is served again at once.
func listen(t testing.TB, cfg *Config) *bench {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, cfg)
}

func serveOn(t testing.TB, l net.Listener, cfg *Config) *bench {
	b := &bench{t: t, addr: l.Addr().String(), errs: make(chan error, 1000), idle: make(chan struct{}, 1000)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			n, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { b.serve(n, cfg) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		b.shutdown()
		wg.Wait()
	})
	return b
}

func (b *bench) serve(n net.Conn, cfg *Config) {
	c := New(n, cfg)
	b.mu.Lock()
	b.all = append(b.all, c)
	b.mu.Unlock()
	for {
		idle, err := c.Serve()
		if !idle {
			b.errs <- err
			return
		}
		b.idle <- struct{}{}
	}
}

func (b *bench) shutdown() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.all {
		c.Shutdown()
	}
}

// client is a well-behaved client that speaks HTTP/2 without TLS.
func (b *bench) client() *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p, ExpectContinueTimeout: 10 * time.Second}
	b.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

func (b *bench) url(path string) string { return "http://" + b.addr + path }

// closed closes c, whatever comes of it.
func closed(c io.Closer) { _ = c.Close() }

func field(name, value string) wire.Field {
	return wire.Field{Name: []byte(name), Value: []byte(value), Kind: wire.KindOf([]byte(name))}
}

// hello answers every request by its method and path.
func hello(s *Stream) {
	r := s.Request()
	body := append(append(append([]byte(nil), r.Method...), ' '), r.Path...)
	_ = s.Head(200, []wire.Field{field("Content-Type", "text/plain"), field("Connection", "close")}, int64(len(body)))
	_, _ = s.Write(body)
	_ = s.End(nil)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// echo answers with the request's body and trailer.
func echo(s *Stream) {
	_ = s.Head(200, nil, -1)
	_ = s.Flush()
	p := make([]byte, 32<<10)
	for {
		n, err := s.Read(p)
		if n > 0 {
			if _, err := s.Write(p[:n]); err != nil {
				return
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			s.Abort()
			return
		}
	}
	_ = s.End(s.Trailer())
}

func get(t testing.TB, c *http.Client, url string) string {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(r.Body)
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(r.StatusCode, " ", string(b))
}

func TestGet(t *testing.T) {
	b := listen(t, &Config{Handle: hello})
	c := b.client()
	for i := range 1000 {
		want := fmt.Sprintf("200 GET /%d?a=b", i)
		if got := get(t, c, b.url(fmt.Sprintf("/%d?a=b", i))); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestParallel(t *testing.T) {
	b := listen(t, &Config{Handle: hello})
	c := b.client()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			for j := range 20 {
				want := fmt.Sprintf("200 GET /%d/%d", i, j)
				if got := get(t, c, b.url(fmt.Sprintf("/%d/%d", i, j))); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestBigBodies(t *testing.T) {
	b := listen(t, &Config{Handle: echo})
	c := b.client()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
	r, err := c.Post(b.url("/"), "x/y", bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	defer closed(r.Body)
	got, err := io.ReadAll(r.Body)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v, want %d", len(got), err, len(want))
	}
}
