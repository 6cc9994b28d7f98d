package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"trivet/proxy/wire"
)

// TestBidirectional is a call as gRPC makes it: messages by turns, trailers at both ends.
func TestBidirectional(t *testing.T) {
	b := listen(t, &Config{Handle: echo})
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", b.url("/service/method"), pr)
	must(err)
	req.Trailer = http.Header{"X-Sum": nil}
	r, err := b.client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(r.Body)
	for i := range 100 {
		want := fmt.Sprintf("message %d", i)
		_, err := pw.Write([]byte(want))
		must(err)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r.Body, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	req.Trailer.Set("X-Sum", "100")
	must(pw.Close())
	if rest, err := io.ReadAll(r.Body); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v after the end", rest, err)
	}
	if got := r.Trailer.Get("X-Sum"); got != "100" {
		t.Errorf("trailer: got %q, want 100", got)
	}
}

func TestInterim(t *testing.T) {
	b := listen(t, &Config{Handle: func(s *Stream) {
		must(s.Head(103, []wire.Field{field("Link", "</a.css>")}, -1))
		body, err := io.ReadAll(s)
		must(err)
		must(s.Head(200, nil, int64(len(body))))
		_, err = s.Write(body)
		must(err)
		must(s.End(nil))
	}})
	var got []string
	trace := &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, h.Get("Link")))
			return nil
		},
		Got100Continue: func() { got = append(got, "go on") },
	}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", b.url("/"), strings.NewReader("abc"))
	must(err)
	req.Header.Set("Expect", "100-continue")
	c := b.client()
	r, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(r.Body)
	body, err := io.ReadAll(r.Body)
	if err != nil || string(body) != "abc" {
		t.Errorf("got %q, %v, want abc", body, err)
	}
	if diff := cmp.Diff([]string{"103</a.css>", "100", "go on"}, got); diff != "" {
		t.Errorf("interim answers (-want +got):\n%s", diff)
	}
}

// TestBodiless has the answers that have no body whatever the handler writes.
func TestBodiless(t *testing.T) {
	tests := []struct {
		method string
		status int
		fields []wire.Field
		length int64
		want   string // Content-Length
	}{
		{"HEAD", 200, nil, 5, "5"},
		{"HEAD", 200, []wire.Field{field("Content-Length", "7")}, 0, "7"},
		{"GET", 204, nil, 0, ""},
		{"GET", 304, nil, 0, ""},
		{"GET", 304, []wire.Field{field("Content-Length", "7")}, -1, ""},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.method, tt.status, tt.length), func(t *testing.T) {
			b := listen(t, &Config{Handle: func(s *Stream) {
				_ = s.Head(tt.status, tt.fields, tt.length)
				_, _ = s.Write([]byte("hello"))
				_ = s.End([]wire.Field{field("X-T", "1")})
			}})
			req, err := http.NewRequestWithContext(t.Context(), tt.method, b.url("/"), nil)
			must(err)
			r, err := b.client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer closed(r.Body)
			body, err := io.ReadAll(r.Body)
			if err != nil || len(body) > 0 || r.StatusCode != tt.status {
				t.Errorf("got %d %q, %v", r.StatusCode, body, err)
			}
			if got := r.Header.Get("Content-Length"); got != tt.want {
				t.Errorf("Content-Length: got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestBroken has answers that are not whole: the client must see that.
func TestBroken(t *testing.T) {
	tests := []struct {
		name   string
		handle func(*Stream)
	}{
		{"nothing", func(*Stream) {}},
		{"head alone", func(s *Stream) { _ = s.Head(200, nil, -1); _ = s.Flush() }},
		{"less than said", func(s *Stream) {
			_ = s.Head(200, nil, 10)
			_, _ = s.Write([]byte("abc"))
			if err := s.End(nil); !errors.Is(err, ErrBody) {
				panic(err)
			}
		}},
		{"more than said", func(s *Stream) {
			_ = s.Head(200, nil, 2)
			if _, err := s.Write([]byte("abc")); !errors.Is(err, ErrBody) {
				panic(err)
			}
			s.Abort()
		}},
		{"aborted", func(s *Stream) {
			_ = s.Head(200, nil, -1)
			_, _ = s.Write([]byte("abc"))
			s.Abort()
			if err := s.End(nil); !errors.Is(err, ErrAborted) {
				panic(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := listen(t, &Config{Handle: tt.handle})
			r, err := b.client().Get(b.url("/"))
			if err == nil {
				defer closed(r.Body)
				_, err = io.ReadAll(r.Body)
			}
			if err == nil {
				t.Error("got nil, want an error")
			}
		})
	}
}

// TestEarly answers an upload without reading it: the answer is whole, and the
// connection goes on, also for many times its window.
func TestEarly(t *testing.T) {
	b := listen(t, &Config{Handle: hello})
	c := b.client()
	for range 100 {
		r, err := c.Post(b.url("/"), "x/y", bytes.NewReader(make([]byte, 1<<20)))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != "POST /" {
			t.Fatalf("got %q, %v", body, err)
		}
		closed(r.Body)
	}
	if len(b.all) != 1 {
		t.Errorf("%d connections were needed, want 1", len(b.all))
	}
}

func TestGone(t *testing.T) {
	told := make(chan error, 1)
	b := listen(t, &Config{Handle: func(s *Stream) {
		gone := make(chan struct{})
		s.OnGone(func() { close(gone) })
		<-gone
		_, err := s.Read(make([]byte, 1))
		if h := s.Head(200, nil, 0); h == nil {
			err = errors.New("head was taken")
		}
		told <- err
	}})
	t.Run("reset", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "GET", b.url("/"), nil)
		must(err)
		time.AfterFunc(20*time.Millisecond, cancel)
		if r, err := b.client().Do(req); err == nil {
			closed(r.Body)
			t.Error("got an answer")
		}
		if err := <-told; !errors.Is(err, ErrReset) {
			t.Errorf("got %v, want %v", err, ErrReset)
		}
	})
	t.Run("closed", func(t *testing.T) {
		r := b.dial(t)
		must(r.open(1, r.getHead(), true))
		r.await(func(f http2.Frame) bool { // all that is sent to it, so that no write meets its end
			s, ok := f.(*http2.SettingsFrame)
			return ok && s.IsAck()
		})
		closed(r.net)
		if err := <-told; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v, want %v", err, io.ErrUnexpectedEOF)
		}
	})
}

// TestUploadBound has clients that send bodies which nobody reads.
func TestUploadBound(t *testing.T) {
	release := make(chan struct{})
	b := listen(t, &Config{Handle: func(s *Stream) { <-release; hello(s) }})
	defer close(release)
	r := b.dial(t)
	go func() {
		for id := uint32(1); id < 20; id += 2 {
			if r.open(id, r.postHead(), false) != nil {
				return
			}
		}
		for p := make([]byte, 16384); r.WriteData(19, false, p) == nil; {
		}
	}()
	if code := r.awaitReset(19); code != http2.ErrCodeFlowControl {
		t.Errorf("got %v, want FLOW_CONTROL_ERROR", code)
	}
	c := b.all[0]
	c.mu.Lock()
	defer c.mu.Unlock()
	held := 0
	for _, s := range c.streams {
		held += s.body.n
	}
	if held > firstWindow {
		t.Errorf("%d bytes are held, want at most %d", held, firstWindow)
	}
}

// TestTrailers has trailers that must not be taken.
func TestTrailers(t *testing.T) {
	tests := []struct {
		name  string
		block func(r *raw) []byte
		want  http2.ErrCode
	}{
		{"pseudo field", func(r *raw) []byte { return r.encode(":path", "/") }, http2.ErrCodeProtocol},
		{"capital", func(r *raw) []byte { return r.encode("Abc", "d") }, http2.ErrCodeProtocol},
		{"connection", func(r *raw) []byte { return r.encode("connection", "close") }, http2.ErrCodeProtocol},
		{"line feed", func(r *raw) []byte { return r.encode("a", "b\nc") }, http2.ErrCodeProtocol},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := listen(t, &Config{Handle: consume})
			r := b.dial(t)
			must(r.open(1, r.postHead(), false))
			must(r.WriteData(1, false, []byte("abc")))
			must(r.open(1, tt.block(r), true))
			if got := r.awaitReset(1); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
