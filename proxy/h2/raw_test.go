package h2

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// raw is a client that sends what it is told, frame by frame.
type raw struct {
	*http2.Framer
	t     testing.TB
	net   net.Conn
	block bytes.Buffer
	enc   *hpack.Encoder
	addr  string
}

// dial has sent the preface and its settings.
func (b *bench) dial(t testing.TB, settings ...http2.Setting) *raw {
	t.Helper()
	n, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(n) })
	must(n.SetDeadline(time.Now().Add(20 * time.Second)))
	return b.greet(t, n, settings...)
}

// greet begins HTTP/2 on n.
func (b *bench) greet(t testing.TB, n net.Conn, settings ...http2.Setting) *raw {
	t.Helper()
	r := &raw{Framer: http2.NewFramer(n, n), t: t, net: n, addr: b.addr}
	r.AllowIllegalWrites = true
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.enc = hpack.NewEncoder(&r.block)
	if _, err := n.Write([]byte(prefaceText)); err != nil {
		t.Fatal(err)
	}
	must(r.WriteSettings(settings...))
	return r
}

// encode is a head of names and values by turns.
func (r *raw) encode(fields ...string) []byte {
	r.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		must(r.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return r.block.Bytes()
}

func (r *raw) getHead(more ...string) []byte {
	return r.encode(append([]string{":method", "GET", ":scheme", "http", ":authority", r.addr, ":path", "/"}, more...)...)
}

func (r *raw) postHead(more ...string) []byte {
	return r.encode(append([]string{":method", "POST", ":scheme", "http", ":authority", r.addr, ":path", "/"}, more...)...)
}

// open sends a head; the error is of a connection that was closed.
func (r *raw) open(id uint32, block []byte, end bool) error {
	return r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: end})
}

// await reads frames until one of them is wanted, or fails the test.
func (r *raw) await(want func(http2.Frame) bool) http2.Frame {
	r.t.Helper()
	for {
		f, err := r.ReadFrame()
		if err != nil {
			r.t.Fatalf("read frame: %v", err)
		}
		if want(f) {
			return f
		}
	}
}

// awaitReset returns the code that a stream is reset with.
func (r *raw) awaitReset(id uint32) http2.ErrCode {
	r.t.Helper()
	f := r.await(func(f http2.Frame) bool {
		_, ok := f.(*http2.RSTStreamFrame)
		return ok && f.Header().StreamID == id
	})
	return f.(*http2.RSTStreamFrame).ErrCode
}

// awaitHead returns the status that a stream is answered with.
func (r *raw) awaitHead(id uint32) *http2.MetaHeadersFrame {
	r.t.Helper()
	f := r.await(func(f http2.Frame) bool {
		_, ok := f.(*http2.MetaHeadersFrame)
		return ok && f.Header().StreamID == id
	})
	return f.(*http2.MetaHeadersFrame)
}

// awaitEnd reads until a stream has ended well.
func (r *raw) awaitEnd(id uint32) {
	r.t.Helper()
	r.await(func(f http2.Frame) bool {
		if f.Header().StreamID != id {
			return false
		}
		if _, ok := f.(*http2.RSTStreamFrame); ok {
			r.t.Fatalf("stream was reset: %v", f)
		}
		return (f.Header().Type == http2.FrameData || f.Header().Type == http2.FrameHeaders) && f.Header().Flags.Has(http2.FlagDataEndStream)
	})
}

// awaitGoAway returns the code that the connection is closed with; -1: without a word.
func (r *raw) awaitGoAway() (int, string) {
	r.t.Helper()
	for {
		f, err := r.ReadFrame()
		var e net.Error
		if errors.As(err, &e) && e.Timeout() {
			r.t.Fatal("connection was not closed in time")
		}
		if err != nil {
			return -1, err.Error()
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			return int(g.ErrCode), string(g.DebugData())
		}
	}
}
