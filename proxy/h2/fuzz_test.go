package h2

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"trivet/proxy/wire"
)

// FuzzServe sends frames made of what it is given: Serve must neither panic nor
// hang, and what it answers must be frames. Each frame is a byte each for its
// type, its flags, its stream and its length, and its payload.
func FuzzServe(f *testing.F) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	head := func() string {
		block.Reset()
		for _, h := range browser("a.test")[:5] {
			must(e.WriteField(h))
		}
		return block.String()
	}
	raw := func(kind, flags, stream byte, payload string) string {
		return string([]byte{kind, flags, stream, byte(len(payload))}) + payload
	}
	f.Add([]byte(raw(1, 5, 1, head()) + raw(1, 4, 3, head()) + raw(0, 8, 3, "\x02abc\x00\x00") + raw(1, 5, 3, "\x00\x01a\x01b") + raw(3, 0, 5, "\x00\x00\x00\x08")))
	f.Add([]byte(raw(4, 0, 0, "\x00\x04\x00\x00\x00\x03") + raw(1, 1, 1, head()[:2]) + raw(9, 4, 1, head()[2:]) + raw(8, 0, 0, "\x00\x00\x00\x09") + raw(8, 0, 1, "\x00\x00\x00\x09")))
	f.Add([]byte(raw(6, 0, 0, "12345678") + raw(7, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x00") + raw(2, 0, 3, "\x00\x00\x00\x01\x05") + raw(0x10, 0, 0, "u=1")))
	cfg := &Config{Handle: consume, Limits: wire.Limits{Target: 200, Field: 500, Head: 2000, Count: 20}, Head: time.Second, Still: time.Second}
	f.Fuzz(func(t *testing.T, in []byte) {
		client, server := net.Pipe()
		must(client.SetDeadline(time.Now().Add(20 * time.Second)))
		done := make(chan struct{})
		go func() {
			defer close(done)
			if idle, _ := New(server, cfg).Serve(); idle {
				t.Error("idle")
			}
		}()
		go func() { _, _ = client.Write(framed(in)) }()
		r := http2.NewFramer(nil, client)
		r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		for {
			f, err := r.ReadFrame()
			if err != nil || f.Header().Type == http2.FrameGoAway {
				break
			}
		}
		closed(client)
		<-done
	})
}

// framed makes frames of in, after the preface and SETTINGS, and one at the end that is a fault.
func framed(in []byte) []byte {
	var b bytes.Buffer
	b.WriteString(prefaceText)
	w := http2.NewFramer(&b, nil)
	w.AllowIllegalWrites = true
	must(w.WriteSettings())
	for len(in) >= 4 {
		n := min(int(in[3]), len(in)-4)
		must(w.WriteRawFrame(http2.FrameType(in[0]%20), http2.Flags(in[1]), uint32(in[2]%16), in[4:4+n]))
		in = in[4+n:]
	}
	must(w.WriteData(0, false, nil))
	return b.Bytes()
}

// FuzzDecode compares our decoder with that of x/net, which allows some more.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x82, 0x87, 0x40, 1, 'a', 1, 'b', 0xbe, 0x7e, 1, 'c'}, []byte{0xbe, 0xbf})
	f.Add([]byte{0x3f, 0xe1, 0x1f, 0x44, 0x83, 0x60, 0x5a, 0x7f}, []byte{0x20, 0x40, 1, 'a', 0x83, 0x60, 0x5a, 0x7f})
	f.Add([]byte{0x1f, 0xe1, 0x1f, 0, 0x10, 1, 'a', 0}, []byte{0x0f, 0x2f, 0x01, 'x'})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var d decoder
		theirs := hpack.NewDecoder(decoderTable, nil)
		for _, block := range [][]byte{first, second} {
			h := head{max: 1 << 30, count: 1 << 30}
			err := d.decode(block, &h)
			want, theirErr := theirs.DecodeFull(block)
			if err != nil {
				return // as strict as it is: that it is not laxer is what counts
			}
			if theirErr != nil {
				t.Fatalf("decoded %x, of which x/net says %v", block, theirErr)
			}
			if diff := cmp.Diff(regular(want), h.fields, cmp.Comparer(bytes.Equal)); h.bad == "" && diff != "" {
				t.Fatalf("%x differs (-want +got):\n%s", block, diff)
			}
		}
	})
}

// regular leaves out pseudo fields.
func regular(all []hpack.HeaderField) (fields []wire.Field) {
	for _, f := range all {
		if !f.IsPseudo() {
			fields = append(fields, wire.Field{Name: []byte(f.Name), Value: []byte(f.Value)})
		}
	}
	return fields
}

// FuzzEncode has heads read back by x/net's decoder, with the client's table
// resized in between.
func FuzzEncode(f *testing.F) {
	f.Add([]byte("\x05Server\x06trivet\x01\x00a\xff\x09"))
	f.Add([]byte("a\x01\x01b\x01\x02a\x01\x01\xff\x01a\x01\x01"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var e encoder
		d := hpack.NewDecoder(4096, nil)
		var pool []wire.Field
		for r := bytes.NewReader(in); r.Len() > 0; {
			c, _ := r.ReadByte()
			if c == 0xff {
				size, _ := r.ReadByte()
				e.limit(min(int(size)*16, encoderTable))
				d.SetAllowedMaxDynamicTableSize(uint32(size) * 16)
			}
			if c == 0xfe {
				e.clear()
			}
			v := make([]byte, int(c)%50)
			_, _ = io.ReadFull(r, v)
			pool = append(pool, wire.Field{Name: []byte{'A' + c%26}, Value: v})
			pool = pool[max(0, len(pool)-40):]
			got, err := d.DecodeFull(e.fields(e.begin(200+int(c)), pool))
			if err != nil {
				t.Fatal(err)
			}
			want := make([]hpack.HeaderField, len(pool))
			for i, f := range pool {
				want[i] = hpack.HeaderField{Name: string(bytes.ToLower(f.Name)), Value: string(f.Value)}
			}
			if diff := cmp.Diff(want, got[1:]); diff != "" {
				t.Fatalf("fields differ (-want +got):\n%s", diff)
			}
		}
	})
}
