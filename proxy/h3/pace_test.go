package h3

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
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

// TestCrowded: while the process holds all it may for slow visitors, who takes
// nothing is cut within seconds, and has few requests answered; another beside
// it is answered.
func TestCrowded(t *testing.T) {
	cut, begun := make(chan error, 100), make(chan struct{}, 100)
	s := serve(t, Config{Crowded: func() bool { return true }, Rules: Rules{Still: time.Hour}, Handle: func(st *Stream) {
		begun <- struct{}{}
		_ = st.Head(200, nil, -1)
		if string(st.Request().Path) == "/small" {
			_, _ = st.Write([]byte("ok"))
			_ = st.End(nil)
			return
		}
		var err error
		for b := make([]byte, 10_000); err == nil; {
			_, err = st.Write(b)
		}
		cut <- err
	}})
	s.client.QUICConfig = &quic.Config{InitialStreamReceiveWindow: 4 << 10, MaxStreamReceiveWindow: 4 << 10}
	for range few {
		a, err := s.client.RoundTrip(request(t, "GET", s.url("/large"), nil))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Body.Close() }()
	}
	if a, err := s.client.RoundTrip(request(t, "GET", s.url("/large"), nil)); err == nil {
		t.Errorf("one more than %d requests: got %d, want it refused", few, a.StatusCode)
		_ = a.Body.Close()
	}
	if n := len(begun); n != few {
		t.Errorf("%d requests were begun, want %d", n, few)
	}
	other := &http3.Transport{TLSClientConfig: clientTLS(), QUICConfig: &quic.Config{}}
	defer func() { _ = other.Close() }()
	a, err := other.RoundTrip(request(t, "GET", s.url("/small"), nil))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(a.Body); string(b) != "ok" || err != nil {
		t.Errorf("another visitor got %q, %v", b, err)
	}
	_ = a.Body.Close()
	for range few {
		select {
		case err := <-cut:
			if !errors.Is(err, ErrStill) {
				t.Errorf("cut by %v, want %v", err, ErrStill)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("who takes nothing is served for twenty seconds")
		}
	}
}
