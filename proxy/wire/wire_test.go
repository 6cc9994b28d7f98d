package wire

import "testing"

func TestSmoke(t *testing.T) {
	const head = "GET /a?b HTTP/1.1\r\nHost: example.com\r\nConnection: X-A\r\nx-a: 1\r\nContent-Length: 3\r\n\r\n"
	n, err := HeadEnd([]byte(head+"abc"), 0)
	if n != len(head) || err != nil {
		t.Fatal(n, err)
	}
	var r Request
	if err := r.Parse([]byte(head), nil); err != nil {
		t.Fatal(err)
	}
	if r.Length != 3 || string(r.Host) != "example.com" || string(r.Path) != "/a?b" || r.Fields[2].Kind != Hop {
		t.Errorf("%+v", r)
	}
	var p Response
	if err := p.Parse([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), []byte("GET"), nil); err != nil || p.Length != -1 {
		t.Fatal(err, p)
	}
	var c Chunks
	b := []byte("5;a=\"b\"\r\nhello\r\n0\r\nX-T: 1\r\n\r\nrest")
	var got []byte
	for len(b) > 0 && !c.Done() {
		d, n, err := c.Next(b)
		if err != nil {
			t.Fatal(err)
		}
		got, b = append(got, d...), b[n:]
	}
	if string(got) != "hello" || len(c.Trailer()) != 1 || string(b) != "rest" {
		t.Errorf("%q %q %v", got, b, c.Trailer())
	}
}

func BenchmarkTiny(b *testing.B) {
	head := []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	benchParse(b, head)
}

func BenchmarkBrowser(b *testing.B) {
	benchParse(b, []byte(browser))
}

const browser = "GET /articles/2026/11/the-quick-brown-fox?utm_source=feed&utm_medium=rss HTTP/1.1\r\n" +
	"Host: www.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Connection: keep-alive\r\n" +
	"Referer: https://www.example.com/articles/\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
	"Upgrade-Insecure-Requests: 1\r\n" +
	"Sec-Fetch-Dest: document\r\n" +
	"Sec-Fetch-Mode: navigate\r\n" +
	"Priority: u=0, i\r\n\r\n"

func benchParse(b *testing.B, head []byte) {
	var r Request
	l := &Limits{Target: 8192, Field: 16384, Head: 65536, Count: 100}
	b.ReportAllocs()
	b.SetBytes(int64(len(head)))
	for b.Loop() {
		n, err := HeadEnd(head, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Parse(head[:n], l); err != nil {
			b.Fatal(err)
		}
	}
}
