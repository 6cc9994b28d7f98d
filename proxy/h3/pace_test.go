package h3

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// drip gives a few bytes at a time, steadily.
type drip struct{ tick *time.Ticker }

func (d drip) Read(p []byte) (int, error) {
	<-d.tick.C
	return min(len(p), 10), nil
}

func newDrip(t *testing.T) drip {
	d := drip{time.NewTicker(10 * time.Millisecond)}
	t.Cleanup(d.tick.Stop)
	return d
}

// TestDrippingBody: a body that comes steadily, but below the rate, is not waited for.
func TestDrippingBody(t *testing.T) {
	got := make(chan error, 1)
	s := serve(t, Config{Rules: Rules{Still: 500 * time.Millisecond, Rate: 10_000}, Handle: func(st *Stream) {
		_, err := io.ReadAll(st)
		got <- err
		_ = answer(st, 408, nil, "")
	}})
	a, _ := s.do(request(t, "POST", s.url("/"), newDrip(t)))
	if err := <-got; !errors.Is(err, ErrStill) || a.StatusCode != 408 {
		t.Errorf("got %v, %d; want %v, 408", err, a.StatusCode, ErrStill)
	}
}

// TestSlowReader: nor is who takes an answer steadily, but below the rate.
func TestSlowReader(t *testing.T) {
	got := make(chan error, 1)
	s := serve(t, Config{Rules: Rules{Still: 500 * time.Millisecond, Rate: 1 << 20}, Handle: func(st *Stream) {
		_ = st.Head(200, nil, -1)
		var err error
		for b := make([]byte, 10_000); err == nil; {
			_, err = st.Write(b)
		}
		got <- err
	}})
	s.client.QUICConfig = &quic.Config{InitialStreamReceiveWindow: 4 << 10, MaxStreamReceiveWindow: 4 << 10}
	a, err := s.client.RoundTrip(request(t, "GET", s.url("/"), nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	go func() {
		d, b := newDrip(t), make([]byte, 100)
		for {
			_, _ = d.Read(nil)
			if _, err := a.Body.Read(b); err != nil {
				return
			}
		}
	}()
	select {
	case err := <-got:
		if !errors.Is(err, ErrStill) {
			t.Errorf("got %v, want %v", err, ErrStill)
		}
	case <-time.After(10 * time.Second):
		t.Error("is served for ten seconds")
	}
}
