package proxyproto

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var same = cmp.Options{cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestRoundTrip(t *testing.T) {
	for _, c := range []struct {
		name string
		h    Header
	}{
		{"local", Header{Local: true}},
		{"TCP over IPv4", Header{Source: ap("192.0.2.7:51000"), Destination: ap("198.51.100.1:443")}},
		{"TCP over IPv6", Header{Source: ap("[2001:db8::7]:51000"), Destination: ap("[2001:db8::1]:443")}},
		{"IPv4 to IPv6", Header{Source: ap("192.0.2.7:51000"), Destination: ap("[2001:db8::1]:443")}},
		{"UDP", Header{Datagram: true, Source: ap("192.0.2.7:51000"), Destination: ap("198.51.100.1:443")}},
		{"all values", Header{
			Source: ap("192.0.2.7:51000"), Destination: ap("198.51.100.1:443"),
			Authority: []byte("www.foobar.com"), ALPN: []byte("h2"), UniqueID: []byte{0, 1, 2},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := AppendV2([]byte("before"), &c.h)
			if err != nil {
				t.Fatal(err)
			}
			b = b[len("before"):]
			got, n, err := Parse(append(slices.Clone(b), "after"...))
			if err != nil || n != len(b) {
				t.Fatalf("got %d, %v; want %d", n, err, len(b))
			}
			if diff := cmp.Diff(c.h, got, same); diff != "" {
				t.Errorf("Parse (-want +got):\n%s", diff)
			}
			r := bytes.NewBufferString(string(b) + "after")
			got, err = Read(iotest.HalfReader(r), nil)
			if diff := cmp.Diff(c.h, got, same); err != nil || diff != "" {
				t.Errorf("Read: %v (-want +got):\n%s", err, diff)
			}
			if rest, _ := io.ReadAll(r); string(rest) != "after" {
				t.Errorf("Read left %q, want %q", rest, "after")
			}
			for k := range b {
				if _, _, err := Parse(b[:k]); !errors.Is(err, ErrIncomplete) {
					t.Fatalf("first %d of %d bytes: got %v, want %v", k, len(b), err, ErrIncomplete)
				}
			}
		})
	}
}

// TestBytes holds the header to the specification's own layout.
func TestBytes(t *testing.T) {
	got, err := AppendV2(nil, &Header{Source: ap("192.0.2.7:256"), Destination: ap("198.51.100.1:443"), Authority: []byte("a.b")})
	if err != nil {
		t.Fatal(err)
	}
	want := "\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a" + "\x21\x11\x00\x19" +
		"\xc0\x00\x02\x07" + "\xc6\x33\x64\x01" + "\x01\x00" + "\x01\xbb" +
		"\x02\x00\x03a.b" + "\x03\x00\x04"
	if string(got[:len(got)-4]) != want {
		t.Errorf("got  %x\nwant %x and four bytes of checksum", got, want)
	}
}

func TestNotWritten(t *testing.T) {
	ok := Header{Source: ap("192.0.2.7:1"), Destination: ap("198.51.100.1:443")}
	for name, change := range map[string]func(*Header){
		"no source":      func(h *Header) { h.Source = netip.AddrPort{} },
		"long authority": func(h *Header) { h.Authority = make([]byte, 256) },
		"long protocol":  func(h *Header) { h.ALPN = make([]byte, 256) },
		"long unique ID": func(h *Header) { h.UniqueID = make([]byte, 129) },
	} {
		h := ok
		change(&h)
		if b, err := AppendV2([]byte("x"), &h); err == nil || string(b) != "x" {
			t.Errorf("%s: got %q, %v; want an error and nothing written", name, b, err)
		}
	}
}

// header is one with this command and family, and what follows them.
func header(command, family byte, rest string) []byte {
	return append([]byte(signature), append([]byte{command, family, byte(len(rest) >> 8), byte(len(rest))}, rest...)...)
}

func TestRefused(t *testing.T) {
	addresses := strings.Repeat("\x01", 12)
	whole, err := AppendV2(nil, &Header{Source: ap("192.0.2.7:1"), Destination: ap("198.51.100.1:443"), Authority: []byte("a.b")})
	if err != nil {
		t.Fatal(err)
	}
	forged := slices.Clone(whole)
	forged[fixed]++
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"version 1", []byte("PROXY TCP4 192.0.2.7 198.51.100.1 1 443\r\n"), ErrSignature},
		{"version 3", header(0x31, 0x11, addresses), ErrSignature},
		{"unknown command", header(0x22, 0x11, addresses), ErrCommand},
		{"no family", header(0x21, 0x00, addresses), ErrFamily},
		{"Unix socket", header(0x21, 0x31, strings.Repeat("x", 216)), ErrFamily},
		{"neither stream nor datagram", header(0x21, 0x10, addresses), ErrFamily},
		{"addresses cut off", header(0x21, 0x11, addresses[1:]), ErrSyntax},
		{"IPv6 addresses cut off", header(0x21, 0x21, addresses), ErrSyntax},
		{"value's head cut off", header(0x21, 0x11, addresses+"\x02\x00"), ErrSyntax},
		{"value cut off", header(0x21, 0x11, addresses+"\x02\x00\x02a"), ErrSyntax},
		{"two authorities", header(0x21, 0x11, addresses+"\x02\x00\x01a\x02\x00\x01b"), ErrSyntax},
		{"empty authority", header(0x21, 0x11, addresses+"\x02\x00\x00"), ErrSyntax},
		{"long unique ID", header(0x21, 0x11, addresses+"\x05\x00\x81"+strings.Repeat("x", 129)), ErrSyntax},
		{"checksum of three bytes", header(0x21, 0x11, addresses+"\x03\x00\x03abc"), ErrSyntax},
		{"wrong checksum", header(0x21, 0x11, addresses+"\x03\x00\x04abcd"), ErrChecksum},
		{"forged", forged, ErrChecksum},
		{"too long", header(0x21, 0x11, addresses+strings.Repeat("\x04\x00\x00", 2000)), ErrLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := Parse(c.in); !errors.Is(err, c.want) {
				t.Errorf("Parse: got %v, want %v", err, c.want)
			}
			if _, err := Read(bytes.NewReader(c.in), nil); !errors.Is(err, c.want) {
				t.Errorf("Read: got %v, want %v", err, c.want)
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	addresses := strings.Repeat("\x01", 12)
	for _, c := range []struct {
		name string
		in   []byte
		want Header
	}{
		{"local with something to skip", header(0x20, 0xff, "whatever"), Header{Local: true}},
		{"unknown values", header(0x21, 0x11, addresses+"\x04\x00\x01x\x20\x00\x00\x30\x00\x02ns"), Header{Source: ap("1.1.1.1:257"), Destination: ap("1.1.1.1:257")}},
	} {
		got, _, err := Parse(c.in)
		if diff := cmp.Diff(c.want, got, same); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", c.name, err, diff)
		}
	}
}

func TestReadBreaks(t *testing.T) {
	whole := header(0x21, 0x11, strings.Repeat("\x01", 12))
	for _, n := range []int{5, 20} {
		if _, err := Read(bytes.NewReader(whole[:n]), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: got %v, want %v", n, err, io.ErrUnexpectedEOF)
		}
	}
}

func TestAllocatesNothing(t *testing.T) {
	h := &Header{Source: ap("192.0.2.7:1"), Destination: ap("198.51.100.1:443"), Authority: []byte("www.foobar.com")}
	b, room := make([]byte, 0, Max), make([]byte, 0, Max)
	r := new(bytes.Reader)
	got := testing.AllocsPerRun(100, func() {
		out, err := AppendV2(b, h)
		if err != nil {
			t.Fatal(err)
		}
		r.Reset(out)
		if _, err := Read(r, room); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

// FuzzParse holds that what is read can be written, and is then read the same.
func FuzzParse(f *testing.F) {
	for _, h := range []Header{
		{Local: true},
		{Source: ap("192.0.2.7:51000"), Destination: ap("198.51.100.1:443"), Authority: []byte("a.b"), ALPN: []byte("h2"), UniqueID: []byte("1")},
		{Datagram: true, Source: ap("[2001:db8::7]:51000"), Destination: ap("[2001:db8::1]:443")},
	} {
		b, err := AppendV2(nil, &h)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(header(0x21, 0x11, strings.Repeat("\x01", 12)+"\x04\x00\x01x\x02\x00\x01a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := Parse(b)
		if err != nil {
			return
		}
		if n > len(b) || n > Max {
			t.Fatalf("got a length of %d of %d bytes", n, len(b))
		}
		again, err := AppendV2(nil, &h)
		if err != nil {
			t.Fatalf("write %+v: %v", h, err)
		}
		got, _, err := Parse(again)
		if diff := cmp.Diff(h, got, same); err != nil || diff != "" {
			t.Fatalf("%v (-first +second):\n%s", err, diff)
		}
	})
}
