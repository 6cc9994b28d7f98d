package wire_test

import (
	"testing"

	"trivet/proxy/wire"
)

func BenchmarkRequest(b *testing.B) {
	for name, head := range map[string]string{"tiny": tiny, "browser": browser} {
		b.Run(name, func(b *testing.B) { parseRequests(b, []byte(head)) })
	}
}

func parseRequests(b *testing.B, head []byte) {
	var r wire.Request
	b.ReportAllocs()
	b.SetBytes(int64(len(head)))
	for b.Loop() {
		n, err := wire.HeadEnd(head, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Parse(head[:n], limits); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResponse(b *testing.B) {
	head, method := []byte(answer), []byte("GET")
	var r wire.Response
	b.ReportAllocs()
	b.SetBytes(int64(len(head)))
	for b.Loop() {
		n, err := wire.HeadEnd(head, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Parse(head[:n], method, limits); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChunks(b *testing.B) {
	body := append([]byte("5\r\nhello\r\n1000\r\n"), make([]byte, 4096)...)
	body = append(body, "\r\n0\r\n\r\n"...)
	var c wire.Chunks
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		c.Reset()
		for rest := body; !c.Done(); {
			_, n, err := c.Next(rest)
			if err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	var r wire.Request
	if err := r.Parse([]byte(browser), limits); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = wire.AppendRequestLine(buf[:0], r.Method, r.Path)
		for i := range r.Fields {
			if f := &r.Fields[i]; !f.Kind.Framing() {
				buf = wire.AppendField(buf, f.Name, f.Value)
			}
		}
		buf = wire.AppendEnd(buf)
	}
}
