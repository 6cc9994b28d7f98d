package h2

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"trivet/proxy/wire"
)

// plain is a client that costs next to nothing: it sends the same head again and
// again, and looks only for frames that end a stream.
type plain struct {
	net  net.Conn
	next uint32
	out  []byte
	in   []byte
	r, w int
	*heads
}

// dialPlain has sent its first request, which fills the compression tables.
func dialPlain(b *testing.B, addr string) *plain {
	n, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { closed(n) })
	p := &plain{net: n, next: 1, in: make([]byte, 64<<10)}
	p.out = append(p.out, prefaceText...)
	p.frame(frameSettings, 0, 0, nil)
	p.frame(frameWindow, 0, 0, []byte{0x7f, 0, 0, 0})
	p.heads = newHeads()
	p.request(p.head(addr))
	p.send(b)
	p.await(b, 1)
	return p
}

// browser is a head as a browser sends it.
func browser(addr string) []hpack.HeaderField {
	return []hpack.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: addr},
		{Name: ":path", Value: "/articles/2026/a-page-with-a-name"},
		{Name: "user-agent", Value: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
		{Name: "accept", Value: "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
		{Name: "accept-language", Value: "en-US,en;q=0.5"},
		{Name: "accept-encoding", Value: "gzip, deflate, br, zstd"},
		{Name: "cookie", Value: "session=0123456789abcdef0123456789abcdef"},
		{Name: "sec-fetch-dest", Value: "document"},
		{Name: "sec-fetch-mode", Value: "navigate"},
	}
}

func (p *plain) frame(kind, flags uint8, stream uint32, b []byte) {
	p.out = append(p.out, byte(len(b)>>16), byte(len(b)>>8), byte(len(b)), kind, flags)
	p.out = append(binary.BigEndian.AppendUint32(p.out, stream), b...)
}

func (p *plain) request(block []byte) {
	p.frame(frameHeaders, flagEndHeaders|flagEndStream, p.next, block)
	p.next += 2
}

func (p *plain) send(b *testing.B) {
	if _, err := p.net.Write(p.out); err != nil {
		b.Fatal(err)
	}
	p.out = p.out[:0]
}

// await reads until n streams have ended.
func (p *plain) await(b *testing.B, n int) {
	for n > 0 {
		for p.w-p.r >= frameHead {
			f := p.in[p.r:p.w]
			size := frameHead + (int(f[0])<<16 | int(f[1])<<8 | int(f[2]))
			if len(f) < size {
				break
			}
			if f[3] <= frameHeaders && f[4]&flagEndStream != 0 {
				n--
			}
			if f[3] == frameReset || f[3] == frameGoAway {
				b.Fatalf("frame %v: %q", http2.FrameType(f[3]), f[frameHead:size])
			}
			p.r += size
		}
		if n == 0 {
			return
		}
		p.w = copy(p.in, p.in[p.r:p.w])
		p.r = 0
		m, err := p.net.Read(p.in[p.w:])
		if err != nil {
			b.Fatal(err)
		}
		p.w += m
	}
}

func benchGet(b *testing.B, parallel int) {
	body := bytes.Repeat([]byte("x"), 130)
	fields := []wire.Field{
		field("Server", "trivet"), field("Date", "Mon, 23 Nov 2026 23:00:00 GMT"), field("Content-Type", "text/html; charset=utf-8"),
		field("Strict-Transport-Security", "max-age=31536000"), field("Cache-Control", "no-cache"), field("Vary", "Accept-Encoding"),
	}
	s := listen(b, &Config{Handle: func(s *Stream) {
		_ = s.Head(200, fields, int64(len(body)))
		_, _ = s.Write(body)
		_ = s.End(nil)
	}})
	c := dialPlain(b, s.addr)
	block := c.head(s.addr) // all of it by the table
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += parallel {
		for range parallel {
			c.request(block)
		}
		c.send(b)
		c.await(b, parallel)
	}
}

// heads encodes heads of browser one after the other.
type heads struct {
	block bytes.Buffer
	enc   *hpack.Encoder
}

func newHeads() *heads {
	h := new(heads)
	h.enc = hpack.NewEncoder(&h.block)
	return h
}

// head is valid until the next.
func (h *heads) head(authority string) []byte {
	h.block.Reset()
	for _, f := range browser(authority) {
		must(h.enc.WriteField(f))
	}
	return h.block.Bytes()
}

func BenchmarkGet(b *testing.B)   { benchGet(b, 1) }
func BenchmarkGet32(b *testing.B) { benchGet(b, 32) }

func BenchmarkUpload(b *testing.B) {
	s := listen(b, &Config{Handle: consume})
	c := s.client()
	body := bytes.Repeat([]byte("x"), 1<<20)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		r, err := c.Post(s.url("/"), "x/y", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		closed(r.Body)
	}
}
