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

// FuzzServe sends what it is given after the preface and SETTINGS: Serve must
// neither panic nor hang, and what it answers must be frames.
func FuzzServe(f *testing.F) {
	add := func(make func(w *http2.Framer, e *hpack.Encoder, block *bytes.Buffer)) {
		var b, block bytes.Buffer
		w := http2.NewFramer(&b, nil)
		w.AllowIllegalWrites = true
		make(w, hpack.NewEncoder(&block), &block)
		f.Add(b.Bytes())
	}
	head := func(e *hpack.Encoder, block *bytes.Buffer) []byte {
		block.Reset()
		for _, h := range browser("a.test") {
			must(e.WriteField(h))
		}
		return block.Bytes()
	}
	add(func(w *http2.Framer, e *hpack.Encoder, block *bytes.Buffer) {
		must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head(e, block), EndHeaders: true, EndStream: true}))
		must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: head(e, block), EndHeaders: true}))
		must(w.WriteDataPadded(3, false, []byte("abc"), make([]byte, 5)))
		must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0, 1, 'a', 1, 'b'}, EndHeaders: true, EndStream: true}))
		must(w.WriteRSTStream(3, 8))
	})
	add(func(w *http2.Framer, e *hpack.Encoder, block *bytes.Buffer) {
		b := head(e, block)
		must(w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:9], Priority: http2.PriorityParam{Weight: 3}}))
		must(w.WriteContinuation(1, true, b[9:]))
		must(w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3}))
		must(w.WriteWindowUpdate(0, 9))
		must(w.WriteWindowUpdate(1, 9))
		must(w.WritePing(false, [8]byte{}))
		must(w.WriteGoAway(0, 0, nil))
	})
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
		go func() {
			w := http2.NewFramer(client, nil)
			_, _ = client.Write([]byte(prefaceText))
			_ = w.WriteSettings()
			_, _ = client.Write(in)
			_, _ = client.Write(make([]byte, maxFrame+2*frameHead)) // DATA on stream 0: ends it, if nothing did
		}()
		r := http2.NewFramer(nil, client)
		r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		for {
			if _, err := r.ReadFrame(); err != nil {
				break
			}
		}
		client.Close()
		<-done
	})
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
