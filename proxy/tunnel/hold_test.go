package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

func TestHoldKeepsAndDrains(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		from, src := pair(t, network)
		to, dst := pair(t, network)
		h := TakeHold()
		if h == nil {
			t.Fatal("no hold")
		}
		want := random(t, HoldLimit)
		go func() { _, _ = from.Write(append(want[:HoldLimit:HoldLimit], "beyond"...)) }()
		if n, err := h.Fill(Raw(src), HoldLimit); n != HoldLimit || err != nil {
			t.Fatalf("%s: held %d bytes, %v, want %d", network, n, err, HoldLimit)
		}
		if h.Len() != HoldLimit {
			t.Errorf("%s: Len is %d, want %d", network, h.Len(), HoldLimit)
		}
		got := make(chan []byte)
		go func() { b := make([]byte, HoldLimit); _, _ = io.ReadFull(to, b); got <- b }()
		if n, err := h.Drain(Raw(dst)); n != HoldLimit || err != nil {
			t.Errorf("%s: drained %d bytes, %v, want %d", network, n, err, HoldLimit)
		}
		if !bytes.Equal(<-got, want) {
			t.Errorf("%s: other bytes came than were held", network)
		}
		h.Give()
		rest := make([]byte, 6)
		if _, err := io.ReadFull(src, rest); err != nil || string(rest) != "beyond" {
			t.Errorf("%s: got %q, %v, want what is beyond", network, rest, err)
		}
	}
}

// TestHoldIsFull: a pipe has places, not bytes.
func TestHoldIsFull(t *testing.T) {
	from, src := pair(t, "tcp")
	h := TakeHold()
	defer h.Give()
	want := random(t, 20_000)
	go func() {
		for i := range want {
			_, _ = from.Write(want[i : i+1])
		}
	}()
	var have []byte
	for len(have) < len(want) {
		if _, err := h.Fill(Raw(src), len(want)-len(have)); err != nil && err != ErrHoldFull {
			t.Fatal(err)
		}
		b, err := io.ReadAll(h)
		if err != nil || h.Len() != 0 {
			t.Fatalf("%d bytes are left, %v", h.Len(), err)
		}
		have = append(have, b...)
	}
	if !bytes.Equal(have, want) {
		t.Error("other bytes came than were held")
	}
}

func TestHoldEnds(t *testing.T) {
	from, src := pair(t, "tcp")
	h := TakeHold()
	defer h.Give()
	send(t, from, []byte("half"))
	_ = from.(*net.TCPConn).CloseWrite()
	if n, err := h.Fill(Raw(src), 8); n != 4 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %d, %v, want 4 and an early end", n, err)
	}
}

// TestHoldsAreFew: they take descriptors.
func TestHoldsAreFew(t *testing.T) {
	var all []*Hold
	for range heldAtOnce {
		h := TakeHold()
		if h == nil {
			t.Fatal("fewer than should be")
		}
		all = append(all, h)
	}
	if TakeHold() != nil {
		t.Error("one more than should be")
	}
	for _, h := range all {
		h.Give()
	}
	h := TakeHold()
	if h == nil {
		t.Error("none again after all were given back")
	}
	h.Give()
}
