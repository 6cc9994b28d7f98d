package h2

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestFloods sends each flood until it is cut, with a client beside it that is
// served all the while.
func TestFloods(t *testing.T) {
	const calm = int(http2.ErrCodeEnhanceYourCalm)
	tests := []struct {
		name string
		// send is called until it fails, for up to times.
		times int
		send  func(r *raw, i int) error
	}{
		{"rapid reset", 2000, func(r *raw, i int) error {
			id := uint32(2*i + 1)
			if err := r.open(id, r.getHead("x-wait", "1"), true); err != nil {
				return err
			}
			return r.WriteRSTStream(id, http2.ErrCodeCancel)
		}},
		{"server-made resets by window", 1000, func(r *raw, i int) error {
			id := uint32(2*i + 1)
			if err := r.open(id, r.getHead("x-wait", "1"), true); err != nil {
				return err
			}
			return r.WriteRawFrame(http2.FrameWindowUpdate, 0, id, []byte{0, 0, 0, 0})
		}},
		{"server-made resets by DATA", 1000, func(r *raw, i int) error {
			id := uint32(2*i + 1)
			if err := r.open(id, r.getHead("x-wait", "1"), true); err != nil {
				return err
			}
			return r.WriteData(id, false, []byte("x"))
		}},
		{"malformed heads", 1000, func(r *raw, i int) error {
			return r.open(uint32(2*i+1), r.getHead("Upper", "case"), true)
		}},
		{"streams beyond the limit", 5000, func(r *raw, i int) error {
			return r.open(uint32(2*i+1), r.getHead("x-wait", "1"), true)
		}},
		{"SETTINGS", 1000, func(r *raw, _ int) error { return r.WriteSettings() }},
		{"SETTINGS acknowledgements", 1000, func(r *raw, _ int) error { return r.WriteSettingsAck() }},
		{"PING", 5000, func(r *raw, _ int) error { return r.WritePing(false, [8]byte{}) }},
		{"PING acknowledgements", 20000, func(r *raw, _ int) error { return r.WritePing(true, [8]byte{}) }},
		{"PRIORITY", 20000, func(r *raw, i int) error {
			return r.WritePriority(uint32(2*i+1), http2.PriorityParam{StreamDep: 0, Weight: 1})
		}},
		{"unknown frames", 20000, func(r *raw, _ int) error { return r.WriteRawFrame(0x42, 0, 0, nil) }},
		{"window updates", 20000, func(r *raw, _ int) error { return r.WriteWindowUpdate(0, 1) }},
		{"empty DATA", 5000, func(r *raw, i int) error {
			if i == 0 {
				return r.open(1, r.postHead("x-wait", "1"), false)
			}
			return r.WriteData(1, false, nil)
		}},
		{"padded empty DATA", 5000, func(r *raw, i int) error {
			if i == 0 {
				return r.open(1, r.postHead("x-wait", "1"), false)
			}
			return r.WriteDataPadded(1, false, nil, make([]byte, 16))
		}},
		{"CONTINUATION", 5000, func(r *raw, i int) error {
			if i == 0 {
				return r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.getHead()})
			}
			return r.WriteContinuation(1, false, []byte{0x80 | 19})
		}},
		{"empty CONTINUATION", 5000, func(r *raw, i int) error {
			if i == 0 {
				return r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: r.getHead()})
			}
			return r.WriteContinuation(1, false, nil)
		}},
		{"HPACK bombs", 1000, func(r *raw, i int) error {
			block := r.getHead("x-bomb", strings.Repeat("x", 3000))
			for range 10000 {
				block = append(block, 0x80|62)
			}
			return r.open(uint32(2*i+1), block, true)
		}},
		{"fields without a name", 1000, func(r *raw, i int) error {
			return r.open(uint32(2*i+1), append(r.getHead(), 0, 0, 0), true)
		}},
		{"DATA to a closed stream", 20000, func(r *raw, i int) error {
			if i == 0 {
				return r.open(1, r.getHead(), true)
			}
			return r.WriteData(1, false, nil)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := listen(t, &Config{Handle: waitOrHello})
			stop := beside(t, b)
			r := b.dial(t)
			go func() {
				for i := range tt.times {
					if tt.send(r, i) != nil {
						return
					}
				}
			}()
			code, why := r.awaitGoAway()
			if code != calm {
				t.Errorf("closed with %d (%s), want %d", code, why, calm)
			}
			t.Log(why)
			if n := stop(); n == 0 {
				t.Error("client beside was not served")
			}
		})
	}
}

// waitOrHello answers; with the field X-Wait, not before the client is gone.
func waitOrHello(s *Stream) {
	for _, f := range s.Request().Fields {
		if f.Is("x-wait") {
			gone := make(chan struct{})
			s.OnGone(func() { close(gone) })
			<-gone
			return
		}
	}
	hello(s)
}

// beside has a well-behaved client ask until stop, which says how often it was answered.
func beside(t *testing.T, b *bench) (stop func() int) {
	c, n := b.client(), 0
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	first := make(chan struct{})
	wg.Go(func() {
		for ctx.Err() == nil {
			if got := get(t, c, b.url("/beside")); got != "200 GET /beside" {
				t.Errorf("client beside got %q", got)
			}
			if n++; n == 1 {
				close(first)
			}
		}
	})
	<-first
	return func() int {
		cancel()
		wg.Wait()
		return n
	}
}

// TestImpatience is a person who clicks and clicks: 60 requests cancelled, 20
// awaited, again and again, on one connection.
func TestImpatience(t *testing.T) {
	b := listen(t, &Config{Handle: waitOrHello})
	r := b.dial(t)
	id := uint32(1)
	for range 5 {
		for range 60 {
			must(r.open(id, r.getHead("x-wait", "1"), true))
			must(r.WriteRSTStream(id, http2.ErrCodeCancel))
			id += 2
		}
		for range 20 {
			for {
				must(r.open(id, r.getHead(), true))
				f := r.await(func(f http2.Frame) bool {
					return f.Header().StreamID == id
				})
				id += 2
				if _, again := f.(*http2.RSTStreamFrame); !again {
					break
				}
			}
		}
	}
}

// TestZombies has handlers that do not notice that they are not wanted any more:
// however many streams are reset, no more of them run than streams are allowed.
func TestZombies(t *testing.T) {
	var running, most atomic.Int32
	release := make(chan struct{})
	b := listen(t, &Config{Streams: 10, Handle: func(*Stream) {
		most.Store(max(most.Load(), running.Add(1)))
		<-release
		running.Add(-1)
	}})
	r := b.dial(t)
	for i := range 100 {
		must(r.open(uint32(2*i+1), r.getHead(), true))
		must(r.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel))
	}
	must(r.open(201, r.getHead(), true))
	if got := r.awaitReset(201); got != http2.ErrCodeRefusedStream {
		t.Errorf("got %v, want REFUSED_STREAM", got)
	}
	if got := most.Load(); got > 10 {
		t.Errorf("%d handlers ran at a time, want at most 10", got)
	}
	close(release)
}

// TestUnread is a client that asks for more and more without reading an answer.
func TestUnread(t *testing.T) {
	b := listen(t, &Config{Still: 500 * time.Millisecond, Handle: func(s *Stream) {
		_ = s.Head(200, nil, -1)
		for p := make([]byte, 10000); ; {
			if _, err := s.Write(p); err != nil {
				return
			}
		}
	}})
	r := b.dial(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	must(r.WriteWindowUpdate(0, 1<<31-1-65535))
	for i := range 100 {
		must(r.open(uint32(2*i+1), r.getHead(), true))
	}
	if err := <-b.errs; err == nil {
		t.Error("got nil, want that the connection was cut")
	}
}
