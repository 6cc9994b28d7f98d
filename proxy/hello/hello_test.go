package hello

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sent is what crypto/tls sends first.
func sent(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer func() { _ = b.Close() }()
	cfg.InsecureSkipVerify = true
	go func() {
		_ = tls.Client(a, cfg).Handshake()
		_ = a.Close()
	}()
	p := make([]byte, Max)
	n, err := b.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	return p[:n]
}

// again puts the message of a hello into records of at most n bytes.
func again(b []byte, n int) []byte {
	var out []byte
	for part := range slices.Chunk(b[recordHead:], n) {
		out = append(out, 22, 3, 1, byte(len(part)>>8), byte(len(part)))
		out = append(out, part...)
	}
	return out
}

func protocols(h Hello) []string {
	var all []string
	for b := h.ALPN; len(b) > 0; b = b[1+b[0]:] {
		all = append(all, string(b[1:1+b[0]]))
	}
	return all
}

func TestParseWhatCryptoTLSSends(t *testing.T) {
	long := strings.Repeat("a.", 120) + "example"
	for _, c := range []struct {
		name string
		cfg  *tls.Config
	}{
		{"plain", &tls.Config{ServerName: "www.foobar.com"}},
		{"protocols", &tls.Config{ServerName: "www.foobar.com", NextProtos: []string{"h2", "http/1.1"}}},
		{"TLS 1.2", &tls.Config{ServerName: "foobar.com", MaxVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}},
		{"no post-quantum share", &tls.Config{ServerName: "foobar.com", CurvePreferences: []tls.CurveID{tls.X25519}}},
		{"long name", &tls.Config{ServerName: long}},
		{"an address is no name", &tls.Config{ServerName: "192.0.2.1"}},
		{"none", &tls.Config{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.cfg.ServerName
			if net.ParseIP(want) != nil {
				want = ""
			}
			whole := sent(t, c.cfg)
			for _, n := range []int{maxRecord, 1000, 17, 3} {
				if n == 3 && len(whole) > 3*maxRecords {
					continue
				}
				b := again(whole, n)
				h, read, err := Read(iotest.OneByteReader(bytes.NewReader(b)), nil)
				if err != nil {
					t.Fatalf("records of %d: %v", n, err)
				}
				if string(h.Name) != want || !slices.Equal(protocols(h), c.cfg.NextProtos) {
					t.Errorf("records of %d: got %q, %q; want %q, %q", n, h.Name, protocols(h), want, c.cfg.NextProtos)
				}
				if !bytes.Equal(read, b) {
					t.Errorf("records of %d: what was read differs from what was sent", n)
				}
			}
		})
	}
}

func TestEveryBeginningIsIncomplete(t *testing.T) {
	whole := sent(t, &tls.Config{ServerName: "www.foobar.com", NextProtos: []string{"h2"}})
	for _, b := range [][]byte{whole, again(whole, 100)} {
		for n := range b {
			if _, err := Parse(b[:n]); !errors.Is(err, ErrIncomplete) {
				t.Fatalf("first %d of %d bytes: got %v, want %v", n, len(b), err, ErrIncomplete)
			}
		}
		if _, err := Parse(append(slices.Clone(b), "early data"...)); err != nil {
			t.Errorf("with something after it: got %v, want none", err)
		}
	}
}

// raw is a hello with these extensions.
func raw(extensions ...byte) []byte {
	b := append([]byte{3, 3}, make([]byte, 32)...)
	b = append(b, 0, 0, 2, 0x13, 1, 1, 0, byte(len(extensions)>>8), byte(len(extensions)))
	b = append(b, extensions...)
	b = append([]byte{1, 0, byte(len(b) >> 8), byte(len(b))}, b...)
	return append([]byte{22, 3, 1, byte(len(b) >> 8), byte(len(b))}, b...)
}

func name(s string) []byte {
	n := len(s)
	return append([]byte{0, 0, 0, byte(n + 5), 0, byte(n + 3), 0, 0, byte(n)}, s...)
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), ErrNotTLS},
		{"first byte", []byte("G"), ErrNotTLS},
		{"SSL 2", []byte{0x80, 0x2e, 1, 3, 1}, ErrNotTLS},
		{"alert", []byte{21, 3, 1, 0, 2, 1, 0}, ErrNotTLS},
		{"odd version", []byte{22, 9}, ErrNotTLS},
		{"long record", []byte{22, 3, 1, 0x40, 1}, ErrNotTLS},
		{"empty record", []byte{22, 3, 1, 0, 0}, ErrRecords},
		{"server hello", []byte{22, 3, 1, 0, 9, 2}, ErrNotHello},
		{"too long", []byte{22, 3, 1, 0, 9, 1, 0, 0xff, 0xff}, ErrLong},
		{"too many records", again(raw(make([]byte, 400)...), 1), ErrRecords},
		{"another message in the record", func() []byte {
			b := append(raw(name("a.b")...), 1)
			b[4]++
			return b
		}(), ErrTrailing},
		{"two names", raw(append(name("a.b"), name("c.d")...)...), ErrSyntax},
		{"two host names in one list", raw(0, 0, 0, 10, 0, 8, 0, 0, 1, 'a', 0, 0, 1, 'b'), ErrSyntax},
		{"empty list of names", raw(0, 0, 0, 2, 0, 0), ErrSyntax},
		{"dot at the end", raw(name("a.b.")...), ErrName},
		{"zero byte", raw(name("a.b\x00.c")...), ErrName},
		{"not ASCII", raw(name("ä.b")...), ErrName},
		{"path", raw(name("../x")...), ErrName},
		{"extension cut off", raw(0, 0, 0, 9, 0), ErrSyntax},
		{"empty protocol", raw(0, 16, 0, 3, 0, 1, 0), ErrSyntax},
		{"protocols cut off", raw(0, 16, 0, 4, 0, 2, 9, 'h'), ErrSyntax},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Parse(c.in); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	for _, c := range []struct {
		name      string
		in        []byte
		server    string
		protocols []string
	}{
		{"upper case", raw(name("WWW.Foobar.COM")...), "WWW.Foobar.COM", nil},
		{"another kind of name first", raw(0, 0, 0, 10, 0, 8, 7, 0, 1, 'x', 0, 0, 1, 'b'), "b", nil},
		{"protocols", raw(0, 16, 0, 8, 0, 6, 2, 'h', '2', 2, 'h', '3'), "", []string{"h2", "h3"}},
		{"unknown extensions", raw(append([]byte{0x0a, 0x0a, 0, 0, 0x0a, 0x0a, 0, 1, 0}, name("a.b")...)...), "a.b", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := Parse(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.server, string(h.Name)) + cmp.Diff(c.protocols, protocols(h)); diff != "" {
				t.Errorf("differs from what is wanted:\n%s", diff)
			}
		})
	}
}

func TestReadBreaks(t *testing.T) {
	whole := sent(t, &tls.Config{ServerName: "a.b"})
	_, read, err := Read(bytes.NewReader(whole[:100]), whole[:40:40])
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(read) != 140 {
		t.Errorf("got %d bytes, %v; want 140, %v", len(read), err, io.ErrUnexpectedEOF)
	}
	if _, _, err := Read(iotest.ErrReader(io.ErrClosedPipe), nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v, want the reader's error", err)
	}
	endless := append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x7f, 0xf0}, make([]byte, 1<<20)...)
	if _, read, err := Read(bytes.NewReader(endless), nil); !errors.Is(err, ErrNotTLS) || len(read) > 2*Max {
		t.Errorf("got %d bytes, %v; want a bound", len(read), err)
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	b := sent(t, &tls.Config{ServerName: "www.foobar.com", NextProtos: []string{"h2"}})
	got := testing.AllocsPerRun(100, func() {
		if h, err := Parse(b); err != nil || string(h.ALPN) != "\x02h2" {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

// theirs is how crypto/tls reads b.
func theirs(b []byte) (info *tls.ClientHelloInfo) {
	c := &fed{r: bytes.NewReader(b)}
	_ = tls.Server(c, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		info = i
		return nil, io.EOF
	}}).Handshake()
	return info
}

type fed struct {
	net.Conn
	r io.Reader
}

func (c *fed) Read(p []byte) (int, error)     { return c.r.Read(p) }
func (*fed) Write(p []byte) (int, error)      { return len(p), nil }
func (*fed) Close() error                     { return nil }
func (*fed) SetWriteDeadline(time.Time) error { return nil }

// FuzzParse holds that whatever crypto/tls reads from a hello, Parse reads too,
// or refuses it for a reason of its own.
func FuzzParse(f *testing.F) {
	whole := sent(f, &tls.Config{ServerName: "www.foobar.com", NextProtos: []string{"h2", "http/1.1"}})
	f.Add(whole)
	f.Add(again(whole, 200))
	f.Add(sent(f, &tls.Config{ServerName: "a.b", MaxVersion: tls.VersionTLS12}))
	f.Add(raw(name("a.b")...))
	f.Add(raw(0, 16, 0, 8, 0, 6, 2, 'h', '2', 2, 'h', '3'))
	f.Add(raw(0, 0, 0, 10, 0, 8, 7, 0, 1, 'x', 0, 0, 1, 'b'))
	own := []error{ErrName, ErrTrailing, ErrNotTLS, ErrRecords, ErrLong, ErrSession}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := Parse(b)
		info := theirs(b)
		if info == nil {
			return
		}
		if err != nil {
			if !slices.ContainsFunc(own, func(e error) bool { return errors.Is(err, e) }) {
				t.Fatalf("got %v; crypto/tls reads %q, %q", err, info.ServerName, info.SupportedProtos)
			}
			return
		}
		if string(h.Name) != info.ServerName || !slices.Equal(protocols(h), info.SupportedProtos) {
			t.Fatalf("got %q, %q; crypto/tls reads %q, %q", h.Name, protocols(h), info.ServerName, info.SupportedProtos)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	hello := sent(b, &tls.Config{ServerName: "www.foobar.com", NextProtos: []string{"h2"}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(hello); err != nil {
			b.Fatal(err)
		}
	}
}
