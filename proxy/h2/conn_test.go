package h2

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"trivet/proxy/wire"
)

// TestSlow has clients that hold something up; each must be cut in time.
func TestSlow(t *testing.T) {
	const soon = 300 * time.Millisecond
	write := func(s *Stream) { // an answer of any size
		_ = s.Head(200, nil, -1)
		for p := make([]byte, 1000); ; {
			if _, err := s.Write(p); err != nil {
				return
			}
		}
	}
	read := func(s *Stream) {
		if _, err := io.ReadAll(s); err != nil {
			return
		}
		hello(s)
	}
	tests := []struct {
		name    string
		handle  func(*Stream)
		preface string // is sent alone, if it is not empty
		send    func(r *raw)
		reset   bool // the stream is; otherwise the connection ends
		want    error
	}{
		{"no preface", hello, "PRI * HT", nil, false, ErrSlowHead},
		{"no SETTINGS", hello, prefaceText, nil, false, ErrSlowHead},
		{"half a frame", hello, "", func(r *raw) { _, _ = r.net.Write([]byte{0, 0, 9, 1, 4, 0}) }, false, ErrSlowHead},
		{"half a head", hello, "", func(r *raw) {
			must(r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.getHead()}))
		}, false, ErrSlowHead},
		{"window of 0", write, "", func(r *raw) {
			must(r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
			must(r.open(1, r.getHead(), true))
		}, true, nil},
		{"window never opened", write, "", func(r *raw) { must(r.open(1, r.getHead(), true)) }, true, nil},
		{"body comes in drops", read, "", func(r *raw) {
			must(r.open(1, r.postHead(), false))
			go func() {
				for t := time.NewTicker(50 * time.Millisecond); r.WriteData(1, false, []byte("x")) == nil; {
					<-t.C
				}
			}()
		}, true, nil},
		{"body does not come", read, "", func(r *raw) { must(r.open(1, r.postHead(), false)) }, true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := listen(t, &Config{Head: soon, Still: soon, Handle: func(s *Stream) {
				if string(s.Request().Path) == "/beside" {
					hello(s)
				} else {
					tt.handle(s)
				}
			}})
			stop := beside(t, b)
			defer stop()
			if tt.preface != "" {
				n, err := net.Dial("tcp", b.addr)
				must(err)
				defer closed(n)
				_, err = n.Write([]byte(tt.preface))
				must(err)
			} else {
				r := b.dial(t)
				tt.send(r)
				if tt.reset {
					if got := r.awaitReset(1); got != http2.ErrCodeCancel {
						t.Errorf("got %v, want CANCEL", got)
					}
					return
				}
			}
			if err := <-b.errs; !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestSteady is an upload by a slow line: one frame takes longer than Still, but
// some of it comes all the time.
func TestSteady(t *testing.T) {
	b := listen(t, &Config{Handle: echo, Head: 300 * time.Millisecond, Still: 300 * time.Millisecond})
	r := b.dial(t)
	must(r.open(1, r.postHead(), false))
	_, err := r.net.Write([]byte{0, 40, 0, 0, 1, 0, 0, 0, 1})
	must(err)
	n := 0
	for range time.Tick(40 * time.Millisecond) {
		if _, err := r.net.Write(make([]byte, 512)); err != nil {
			t.Fatal(err)
		}
		if n++; n == 20 {
			break
		}
	}
	r.awaitEnd(1)
}

// TestDead is a client that vanished: a stream that waits for nothing but it must not stay for ever.
func TestDead(t *testing.T) {
	b := listen(t, &Config{Still: 300 * time.Millisecond, Handle: func(s *Stream) {
		_ = s.Head(200, nil, -1)
		_ = s.Flush()
		_, _ = s.Read(make([]byte, 1))
	}})
	r := b.dial(t)
	must(r.open(1, r.postHead(), false))
	if err := <-b.errs; !errors.Is(err, ErrStill) {
		t.Errorf("got %v, want %v", err, ErrStill)
	}
}

// TestQuiet is a stream on which nothing is said for many times Still, by a
// client that is there: it stays.
func TestQuiet(t *testing.T) {
	b := listen(t, &Config{Still: time.Second, Handle: echo})
	r := b.dial(t)
	must(r.open(1, r.postHead(), false))
	for n := 0; n < 3; {
		f := r.await(func(f http2.Frame) bool { return f.Header().Type == http2.FramePing })
		must(r.WritePing(true, f.(*http2.PingFrame).Data))
		n++
	}
	must(r.WriteData(1, true, []byte("abc")))
	r.awaitEnd(1)
}

// TestPark asks, is idle, and asks again on the same connection.
func TestPark(t *testing.T) {
	b := listen(t, &Config{Handle: hello, Park: 50 * time.Millisecond})
	c := b.client()
	for range 3 {
		for range 3 {
			if got := get(t, c, b.url("/a")); got != "200 GET /a" {
				t.Errorf("got %q", got)
			}
		}
		<-b.idle
	}
	if n := len(b.all); n != 1 {
		t.Errorf("%d connections were needed, want 1", n)
	}
}

// TestEnd ends a connection that nobody serves.
func TestEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	defer closed(l)
	b := &bench{t: t, addr: l.Addr().String()}
	r := b.dial(t)
	n, err := l.Accept()
	must(err)
	c := New(n, &Config{Handle: hello, Park: 50 * time.Millisecond})
	idle, err := c.Serve()
	if !idle || err != nil {
		t.Fatalf("got %v, %v, want that it is idle", idle, err)
	}
	if c.in != nil || c.out != nil {
		t.Error("buffers are kept")
	}
	c.End()
	if code, why := r.awaitGoAway(); code != 0 {
		t.Errorf("got %d %s, want NO_ERROR", code, why)
	}
}

// TestParkedShutdown: a client that waits is told, and what it sends meanwhile is answered.
func TestParkedShutdown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	defer closed(l)
	r := (&bench{t: t, addr: l.Addr().String()}).dial(t)
	n, err := l.Accept()
	must(err)
	c := New(n, &Config{Handle: hello, Park: 50 * time.Millisecond, Still: time.Second})
	if idle, err := c.Serve(); !idle || err != nil {
		t.Fatalf("got %v, %v, want that it is idle", idle, err)
	}
	c.Shutdown()
	must(r.open(1, r.getHead(), true))
	over := make(chan error, 1)
	go func() { _, err := c.Serve(); over <- err }()
	for _, want := range []uint32{maxStream, 1} {
		got := r.await(func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }).(*http2.GoAwayFrame)
		if got.LastStreamID != want || got.ErrCode != http2.ErrCodeNo {
			t.Errorf("GOAWAY: got %v, want stream %d and no error", got, want)
		}
		if want == maxStream {
			r.awaitEnd(1)
		}
	}
	if err := <-over; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

// TestShutdown drains: what is under way is answered to its end, what comes later is not.
func TestShutdown(t *testing.T) {
	got, release := make(chan struct{}), make(chan struct{})
	b := listen(t, &Config{Still: 5 * time.Second, Handle: func(s *Stream) {
		got <- struct{}{}
		<-release
		hello(s)
	}})
	r := b.dial(t)
	must(r.open(1, r.getHead(), true))
	<-got
	b.shutdown()
	notice := r.await(func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }).(*http2.GoAwayFrame)
	if notice.LastStreamID != maxStream || notice.ErrCode != http2.ErrCodeNo {
		t.Errorf("first GOAWAY: %v", notice)
	}
	must(r.open(3, r.getHead(), true))
	<-got
	last := r.await(func(f http2.Frame) bool { return f.Header().Type == http2.FrameGoAway }).(*http2.GoAwayFrame)
	if last.LastStreamID != 3 || last.ErrCode != http2.ErrCodeNo {
		t.Errorf("second GOAWAY: %v", last)
	}
	must(r.open(5, r.getHead(), true))
	close(release)
	r.awaitEnd(1)
	if err := <-b.errs; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

// TestTableSurvives changes the size of the client's table in the middle, and
// parks: heads must stay readable.
func TestTableSurvives(t *testing.T) {
	b := listen(t, &Config{Park: 50 * time.Millisecond, Handle: func(s *Stream) {
		_ = s.Head(200, []wire.Field{field("Server", "trivet"), field("X-Long", strings.Repeat("x", 300))}, 0)
		_ = s.End(nil)
	}})
	r := b.dial(t)
	id := uint32(1)
	ask := func() {
		t.Helper()
		for range 4 {
			must(r.open(id, r.getHead(), true))
			if h := r.awaitHead(id); len(h.Fields) != 4 || len(h.RegularFields()[1].Value) != 300 {
				t.Errorf("got %v", h.Fields)
			}
			id += 2
		}
	}
	ask()
	<-b.idle
	ask()
	for _, n := range []uint32{0, 4096, 100, 1000} {
		must(r.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: n}))
		r.await(func(f http2.Frame) bool {
			return f.Header().Type == http2.FrameSettings && f.Header().Flags.Has(http2.FlagSettingsAck)
		})
		r.ReadMetaHeaders.SetAllowedMaxDynamicTableSize(n)
		ask()
	}
}

// TestTLS asks over TLS, with parking in between.
func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(nil)
	s.TLS = &tls.Config{NextProtos: []string{"h2"}}
	s.StartTLS() // for its certificate and the client that trusts it
	defer s.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", s.TLS)
	must(err)
	b := serveOn(t, l, &Config{Handle: echo, Park: 50 * time.Millisecond})
	c := s.Client()
	c.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	for range 3 {
		r, err := c.Post("https://"+b.addr+"/", "x/y", strings.NewReader("abc"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		closed(r.Body)
		if err != nil || string(body) != "abc" || r.ProtoMajor != 2 {
			t.Errorf("got %s %q, %v", r.Proto, body, err)
		}
		<-b.idle
	}
	if n := len(b.all); n != 1 {
		t.Errorf("%d connections were needed, want 1", n)
	}
}
