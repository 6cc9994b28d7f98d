package h2

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestBlocked: a client that takes nothing has no more answers made for it than
// it may hold up; those that waited begin as it takes some.
func TestBlocked(t *testing.T) {
	const size, streams = 60_000, 100
	var begun atomic.Int32
	b := listen(t, &Config{Handle: func(s *Stream) {
		begun.Add(1)
		_ = s.Head(200, nil, size)
		_, _ = s.Write(make([]byte, size))
		_ = s.End(nil)
	}})
	r := b.dial(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for i := range streams {
		must(r.open(uint32(2*i+1), r.getHead(), true))
	}
	must(r.WritePing(false, [8]byte{1}))
	r.await(func(f http2.Frame) bool {
		p, ok := f.(*http2.PingFrame)
		return ok && p.IsAck()
	})
	until(t, func() bool { return Blocked() >= maxBlocked })
	if got := Blocked(); got > maxBlocked+8*size {
		t.Errorf("%d bytes are held, want about %d", got, maxBlocked)
	}
	if n := begun.Load(); n > streams/2 {
		t.Errorf("%d handlers have begun, want %d at most", n, streams/2)
	}
	must(r.WriteWindowUpdate(0, streams*size))
	must(r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: size}))
	for ended := 0; ended < streams; {
		f := r.await(func(f http2.Frame) bool { return f.Header().Type == http2.FrameData })
		if f.(*http2.DataFrame).StreamEnded() {
			ended++
		}
	}
	until(t, func() bool { return Blocked() == 0 })
}

// TestBlockedGone: streams that wait to begin end with their connection, unseen.
func TestBlockedGone(t *testing.T) {
	const size = 60_000
	var begun atomic.Int32
	b := listen(t, &Config{Handle: func(s *Stream) {
		begun.Add(1)
		_ = s.Head(200, nil, size)
		_, _ = s.Write(make([]byte, size))
	}})
	r := b.dial(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for i := range 100 {
		must(r.open(uint32(2*i+1), r.getHead(), true))
	}
	until(t, func() bool { return Blocked() >= maxBlocked })
	closed(r.net)
	if err := <-b.errs; err == nil {
		t.Error("a connection that broke ended without an error")
	}
	if Blocked() != 0 || begun.Load() > 50 {
		t.Errorf("%d bytes are held, and %d handlers began", Blocked(), begun.Load())
	}
}

// TestStalledAreCut: clients that take nothing are cut once all together hold
// too much; one that takes a little at a time beside them is not.
func TestStalledAreCut(t *testing.T) {
	const size, streams, stalled, enough = 60_000, 20, maxBlockedAll/maxBlocked + 16, 8
	b := listen(t, &Config{Still: time.Minute, Handle: func(s *Stream) {
		_ = s.Head(200, nil, -1)
		for err := error(nil); err == nil; {
			_, err = s.Write(make([]byte, size))
		}
	}})
	slow := b.dial(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	must(slow.open(1, slow.getHead(), true))
	must(slow.WriteWindowUpdate(0, 1<<30))
	for range stalled {
		r := b.dial(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		for i := range streams {
			must(r.open(uint32(2*i+1), r.getHead(), true))
		}
	}
	until(t, func() bool { return Blocked() >= maxBlockedAll })
	for cut := 0; cut < enough; {
		must(slow.WriteWindowUpdate(1, 1<<10))
		slow.await(func(f http2.Frame) bool { return f.Header().Type == http2.FrameData })
		select {
		case err := <-b.errs:
			if !errors.Is(err, ErrStill) {
				t.Fatalf("cut by %v, want %v", err, ErrStill)
			}
			cut++
		default:
		}
	}
	until(t, func() bool { return Blocked() < maxBlockedAll })
	must(slow.WriteWindowUpdate(1, 1<<10))
	slow.await(func(f http2.Frame) bool { return f.Header().Type == http2.FrameData })
}

// TestSlowReaderOutlivesDrain: a client that reads slowly, and says so by
// WINDOW_UPDATEs, gets all of an answer that was written when the server drained.
func TestSlowReaderOutlivesDrain(t *testing.T) {
	const size = 3 << 20
	written := make(chan struct{})
	b := listen(t, &Config{Still: 5 * time.Second, Handle: func(s *Stream) {
		_ = s.Head(200, nil, size)
		_, _ = s.Write(make([]byte, size))
		_ = s.End(nil)
		close(written)
	}})
	r := b.dial(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: size})
	must(r.net.(*net.TCPConn).SetReadBuffer(32 << 10))
	must(r.WriteWindowUpdate(0, size))
	must(r.open(1, r.getHead(), true))
	drained, got := false, 0
	for {
		f, err := r.ReadFrame()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
		d, ok := f.(*http2.DataFrame)
		if !ok {
			continue
		}
		if got += len(d.Data()); got < size && got%(64<<10) < http2MaxData {
			must(r.WriteWindowUpdate(0, 64<<10))
			time.Sleep(60 * time.Millisecond) // that is the slow client
		}
		select {
		case <-written:
			if !drained {
				drained = true
				b.shutdown()
				t.Logf("drained at %d bytes", got)
			}
		default:
		}
	}
	if got != size || !drained {
		t.Errorf("got %d bytes, want %d; drained %v", got, size, drained)
	}
	closed(r.net)
	if err := <-b.errs; err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

const http2MaxData = 16 << 10

func until(t *testing.T, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !met(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not so after ten seconds")
		}
	}
}
