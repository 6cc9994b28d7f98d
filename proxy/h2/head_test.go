package h2

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/net/http2"

	"trivet/proxy/wire"
)

// TestMalformed has requests that are reset, or turned down, without a handler.
func TestMalformed(t *testing.T) {
	get := func(r *raw, more ...string) []byte { return r.getHead(more...) }
	tests := []struct {
		name  string
		block func(r *raw) []byte
		end   bool
		want  string
	}{
		{"no pseudo fields", func(r *raw) []byte { return r.encode("a", "b") }, true, "reset PROTOCOL_ERROR"},
		{"method twice", func(r *raw) []byte {
			return r.encode(":method", "GET", ":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a")
		}, true, "reset PROTOCOL_ERROR"},
		{"pseudo field last", func(r *raw) []byte {
			return r.encode(":method", "GET", ":scheme", "http", ":authority", "a", "b", "c", ":path", "/")
		}, true, "reset PROTOCOL_ERROR"},
		{"status", func(r *raw) []byte { return get(r, ":status", "200") }, true, "reset PROTOCOL_ERROR"},
		{"empty path", func(r *raw) []byte {
			return r.encode(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "")
		}, true, "reset PROTOCOL_ERROR"},
		{"path without slash", func(r *raw) []byte {
			return r.encode(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "a")
		}, true, "reset PROTOCOL_ERROR"},
		{"path with space", func(r *raw) []byte {
			return r.encode(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/a b")
		}, true, "reset PROTOCOL_ERROR"},
		{"asterisk of GET", func(r *raw) []byte {
			return r.encode(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "*")
		}, true, "reset PROTOCOL_ERROR"},
		{"asterisk of OPTIONS", func(r *raw) []byte {
			return r.encode(":method", "OPTIONS", ":scheme", "http", ":authority", "a", ":path", "*")
		}, true, "200"},
		{"odd scheme", func(r *raw) []byte {
			return r.encode(":method", "GET", ":scheme", "ht tp", ":authority", "a", ":path", "/")
		}, true, "reset PROTOCOL_ERROR"},
		{"odd method", func(r *raw) []byte {
			return r.encode(":method", "G T", ":scheme", "http", ":authority", "a", ":path", "/")
		}, true, "reset PROTOCOL_ERROR"},
		{"user in authority", func(r *raw) []byte {
			return r.encode(":method", "GET", ":scheme", "http", ":authority", "u@a", ":path", "/")
		}, true, "reset PROTOCOL_ERROR"},
		{"empty authority", func(r *raw) []byte {
			return r.encode(":method", "GET", ":scheme", "http", ":authority", "", ":path", "/")
		}, true, "reset PROTOCOL_ERROR"},
		{"neither authority nor host", func(r *raw) []byte { return r.encode(":method", "GET", ":scheme", "http", ":path", "/") }, true, "reset PROTOCOL_ERROR"},
		{"host alone", func(r *raw) []byte {
			return r.encode(":method", "GET", ":scheme", "http", ":path", "/", "host", "a.test")
		}, true, "200"},
		{"host as authority", func(r *raw) []byte {
			return r.encode(":method", "GET", ":scheme", "http", ":authority", "a.test", ":path", "/", "host", "A.test")
		}, true, "200"},
		{"host differs", func(r *raw) []byte { return get(r, "host", "other.test") }, true, "reset PROTOCOL_ERROR"},
		{"host twice", func(r *raw) []byte {
			return r.encode(":method", "GET", ":scheme", "http", ":path", "/", "host", "a", "host", "a")
		}, true, "reset PROTOCOL_ERROR"},
		{"capital", func(r *raw) []byte { return get(r, "Abc", "d") }, true, "reset PROTOCOL_ERROR"},
		{"space in a name", func(r *raw) []byte { return get(r, "a b", "d") }, true, "reset PROTOCOL_ERROR"},
		{"empty name", func(r *raw) []byte { return get(r, "", "d") }, true, "reset PROTOCOL_ERROR"},
		{"line feed in a value", func(r *raw) []byte { return get(r, "a", "b\nc: d") }, true, "reset PROTOCOL_ERROR"},
		{"carriage return in a value", func(r *raw) []byte { return get(r, "a", "b\rc") }, true, "reset PROTOCOL_ERROR"},
		{"NUL in a value", func(r *raw) []byte { return get(r, "a", "b\x00c") }, true, "reset PROTOCOL_ERROR"},
		{"space before a value", func(r *raw) []byte { return get(r, "a", " b") }, true, "reset PROTOCOL_ERROR"},
		{"tab after a value", func(r *raw) []byte { return get(r, "a", "b\t") }, true, "reset PROTOCOL_ERROR"},
		{"connection", func(r *raw) []byte { return get(r, "connection", "close") }, true, "reset PROTOCOL_ERROR"},
		{"keep-alive", func(r *raw) []byte { return get(r, "keep-alive", "1") }, true, "reset PROTOCOL_ERROR"},
		{"proxy-connection", func(r *raw) []byte { return get(r, "proxy-connection", "close") }, true, "reset PROTOCOL_ERROR"},
		{"transfer-encoding", func(r *raw) []byte { return get(r, "transfer-encoding", "chunked") }, true, "reset PROTOCOL_ERROR"},
		{"upgrade", func(r *raw) []byte { return get(r, "upgrade", "websocket") }, true, "reset PROTOCOL_ERROR"},
		{"te", func(r *raw) []byte { return get(r, "te", "gzip") }, true, "reset PROTOCOL_ERROR"},
		{"te trailers", func(r *raw) []byte { return get(r, "te", "trailers") }, true, "200"},
		{"length without a body", func(r *raw) []byte { return get(r, "content-length", "1") }, true, "reset PROTOCOL_ERROR"},
		{"odd length", func(r *raw) []byte { return get(r, "content-length", "+1") }, false, "reset PROTOCOL_ERROR"},
		{"length twice", func(r *raw) []byte { return get(r, "content-length", "0", "content-length", "0") }, true, "reset PROTOCOL_ERROR"},
		{"protocol without CONNECT", func(r *raw) []byte { return get(r, ":protocol", "websocket") }, true, "reset PROTOCOL_ERROR"},
		{"CONNECT with a path", func(r *raw) []byte { return r.encode(":method", "CONNECT", ":authority", "a:1", ":path", "/") }, false, "reset PROTOCOL_ERROR"},
		{"CONNECT", func(r *raw) []byte { return r.encode(":method", "CONNECT", ":authority", "a:1") }, false, "200"},
		{"extended CONNECT", func(r *raw) []byte {
			return r.encode(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/chat")
		}, false, "200"},
		{"extended CONNECT without a path", func(r *raw) []byte {
			return r.encode(":method", "CONNECT", ":protocol", "websocket", ":authority", "a")
		}, false, "reset PROTOCOL_ERROR"},
		{"long path", func(r *raw) []byte {
			return r.encode(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"+strings.Repeat("a", 1000))
		}, true, "414"},
		{"long field", func(r *raw) []byte { return get(r, "a", strings.Repeat("b", 2000)) }, true, "431"},
		{"long head", func(r *raw) []byte {
			block := get(r, "a", strings.Repeat("b", 1000))
			return append(block, 0x80|62, 0x80|62, 0x80|62, 0x80|62, 0x80|62)
		}, true, "431"},
		{"many fields", func(r *raw) []byte {
			block := get(r)
			for range 25 {
				block = append(block, 0x80|16)
			}
			return block
		}, true, "431"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked := make(chan struct{}, 9)
			b := listen(t, &Config{Limits: wire.Limits{Target: 999, Field: 1500, Head: 4000, Count: 20}, Handle: func(s *Stream) {
				asked <- struct{}{}
				hello(s)
			}})
			r := b.dial(t)
			must(r.open(1, tt.block(r), tt.end))
			got := ""
			r.await(func(f http2.Frame) bool {
				if f.Header().StreamID != 1 {
					return false
				}
				switch f := f.(type) {
				case *http2.RSTStreamFrame:
					got = fmt.Sprint("reset ", f.ErrCode)
				case *http2.MetaHeadersFrame:
					got = f.PseudoValue("status")
				}
				return true
			})
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if n := len(asked); (n > 0) != (tt.want == "200") {
				t.Errorf("handler was called %d times", n)
			}
			must(r.open(3, r.getHead(), true))
			if got := r.awaitHead(3).PseudoValue("status"); got != "200" {
				t.Errorf("next request on the connection got %s", got)
			}
		})
	}
}

var private = cmpopts.IgnoreUnexported(wire.Request{})

// TestRequest compares what a handler sees with what was sent.
func TestRequest(t *testing.T) {
	got := make(chan wire.Request, 1)
	b := listen(t, &Config{Handle: func(s *Stream) {
		r := *s.Request()
		r.Fields = append([]wire.Field(nil), r.Fields...)
		got <- r
		hello(s)
	}})
	r := b.dial(t)
	must(r.open(1, r.encode(":method", "POST", ":scheme", "http", ":authority", "a.test:81", ":path", "/p?q", "cookie", "a=1", "X-a"[:0]+"x-a", "1",
		"cookie", "b=2", "te", "trailers", "expect", "100-continue", "cookie", "c=3", "content-length", "3"), false))
	want := wire.Request{
		Method: []byte("POST"), Scheme: []byte("http"), Host: []byte("a.test:81"), Path: []byte("/p?q"), Length: 3,
		Major: 2, Expect: true, Trailers: true,
		Fields: []wire.Field{
			field("cookie", "a=1; b=2; c=3"), field("x-a", "1"), field("te", "trailers"),
			field("expect", "100-continue"), field("content-length", "3"),
		},
	}
	if diff := cmp.Diff(want, <-got, private); diff != "" {
		t.Errorf("request differs (-want +got):\n%s", diff)
	}
	must(r.open(3, r.encode(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/chat"), false))
	want = wire.Request{
		Method: []byte("CONNECT"), Protocol: []byte("websocket"), Scheme: []byte("http"), Host: []byte("a"), Path: []byte("/chat"),
		Length: -1, Major: 2,
	}
	if diff := cmp.Diff(want, <-got, private); diff != "" {
		t.Errorf("extended CONNECT differs (-want +got):\n%s", diff)
	}
}
