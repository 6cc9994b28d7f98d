package h3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"trivet/proxy/wire"
)

func TestSlowBody(t *testing.T) {
	got := make(chan error, 1)
	s := serve(t, Config{Rules: Rules{Still: 50 * time.Millisecond}, Handle: func(st *Stream) {
		_, err := io.ReadAll(st)
		got <- err
		_ = answer(st, 408, nil, "")
	}})
	a, _ := s.do(request(t, "POST", s.url("/"), neverEnds{t.Context()}))
	if err := <-got; !errors.Is(err, ErrStill) || a.StatusCode != 408 {
		t.Errorf("got %v, %d; want %v, 408", err, a.StatusCode, ErrStill)
	}
}

func TestManyAtATime(t *testing.T) {
	s := serve(t, Config{Handle: func(st *Stream) { _ = answer(st, 200, nil, string(st.Request().Path)) }})
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			path := fmt.Sprintf("/%d", i)
			a, err := s.client.RoundTrip(request(t, "GET", s.url(path), nil))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = a.Body.Close() }()
			if b, err := io.ReadAll(a.Body); err != nil || string(b) != path {
				t.Errorf("got %q, %v; want %q", b, err, path)
			}
		})
	}
	all.Wait()
	_ = s.client.Close()
	until(t, "all is closed", func() bool {
		connections, requests := s.server.Open()
		return connections == 0 && requests == 0
	})
}

func TestRefused(t *testing.T) {
	var mu sync.Mutex
	var told []int
	s := serve(t, Config{
		Rules: Rules{Limits: wire.Limits{Head: 4000, Count: 20, Target: 100, Field: 500}},
		Refused: func(peer netip.AddrPort, status int) []wire.Field {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, status)
			return []wire.Field{field("X-Request-Id", peer.Addr().String())}
		},
		Handle: func(st *Stream) { _ = answer(st, 200, nil, "") },
	})
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		want   int
	}{
		{"ordinary", func(*http.Request) {}, 200},
		{"long target", func(r *http.Request) { r.URL.Path = "/" + strings.Repeat("a", 200) }, 414},
		{"long field", func(r *http.Request) { r.Header.Set("X", strings.Repeat("a", 600)) }, 431},
		{"long head", func(r *http.Request) {
			for i := range 12 {
				r.Header.Set(fmt.Sprint("X-", i), strings.Repeat("a", 400))
			}
		}, 431},
		{"many fields", func(r *http.Request) {
			for i := range 30 {
				r.Header.Set(fmt.Sprint("X-", i), "")
			}
		}, 431},
		{"host", func(r *http.Request) { r.Host = "a:b:c" }, 400},
	} {
		r := request(t, "GET", s.url("/"), nil)
		c.change(r)
		a, err := s.client.RoundTrip(r)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		_ = a.Body.Close()
		if a.StatusCode != c.want {
			t.Errorf("%s: got %d, want %d", c.name, a.StatusCode, c.want)
		}
		if id := a.Header.Get("X-Request-Id"); c.want != 200 && id != "127.0.0.1" {
			t.Errorf("%s: got ID %q, want what Refused gave", c.name, id)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []int{414, 431, 431, 431, 400}; !slices.Equal(told, want) {
		t.Errorf("Refused was told of %v, want %v", told, want)
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	s := serve(t, Config{Rules: Rules{Idle: 200 * time.Millisecond}, Handle: func(st *Stream) { _ = answer(st, 200, nil, "") }})
	c, err := quic.DialAddr(t.Context(), s.address, clientTLS(), &quic.Config{KeepAlivePeriod: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseWithError(0, "") }()
	str, err := c.OpenStream() // and half a head on it
	if err != nil {
		t.Fatal(err)
	}
	_, _ = str.Write([]byte{1, 50, 0, 0})
	select {
	case <-c.Context().Done():
	case <-time.After(10 * time.Second):
		t.Error("a connection with half a head lives on")
	}
}

func TestConnectionLimitAndRetry(t *testing.T) {
	s := serve(t, Config{Rules: Rules{Connections: 2}, Unproven: 1, Handle: func(st *Stream) { _ = answer(st, 200, nil, "") }})
	dial := func() (*quic.Conn, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return quic.DialAddr(ctx, s.address, clientTLS(), nil)
	}
	for i := range 2 { // at least the second has to prove its address
		c, err := dial()
		if err != nil {
			t.Fatalf("connection %d: %v", i+1, err)
		}
		defer func() { _ = c.CloseWithError(0, "") }()
	}
	if c, err := dial(); err == nil {
		_ = c.CloseWithError(0, "")
		t.Error("a third connection was let in, want two at most")
	}
}

func TestResetsWithoutEndAreCut(t *testing.T) {
	begun := make(chan bool, 1)
	s := serve(t, Config{Handle: func(st *Stream) {
		gone := make(chan bool)
		st.OnGone(func() { close(gone) })
		begun <- true
		<-gone
	}})
	c, err := quic.DialAddr(t.Context(), s.address, clientTLS(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseWithError(0, "") }()
	h := s.client.NewClientConn(c)
	for i := range 2 * resets {
		st, err := h.OpenRequestStream(c.Context())
		if err == nil {
			err = st.SendRequestHeader(request(t, "GET", "https://a.b/", nil))
		}
		if err != nil {
			var e *quic.ApplicationError
			if !errors.As(context.Cause(c.Context()), &e) || e.ErrorCode != quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad) {
				t.Errorf("got %v after %d requests, want %v", context.Cause(c.Context()), i, http3.ErrCodeExcessiveLoad)
			}
			return
		}
		_ = st.Close()
		select {
		case <-begun:
		case <-c.Context().Done():
		}
		st.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
		st.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	}
	t.Errorf("%d resets, and the connection lives on", 2*resets)
}

func TestTicketKeysAreThoseOfTheTime(t *testing.T) {
	cfg := &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	s := serve(t, Config{TLS: cfg, Handle: func(st *Stream) { _ = answer(st, 200, nil, "") }})
	cache := tls.NewLRUClientSessionCache(1)
	resumed := func() bool {
		client := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "a.b", ClientSessionCache: cache}}
		defer func() { _ = client.Close() }()
		a, err := client.RoundTrip(request(t, "GET", s.url("/"), nil))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Body.Close() }()
		return a.TLS.DidResume
	}
	cfg.SetSessionTicketKeys([][32]byte{{1}})
	if resumed() {
		t.Error("the first connection was resumed")
	}
	if !resumed() {
		t.Error("the second connection was not resumed")
	}
	cfg.SetSessionTicketKeys([][32]byte{{2}, {1}})
	if !resumed() {
		t.Error("after a rotation: not resumed")
	}
	cfg.SetSessionTicketKeys([][32]byte{{3}})
	if resumed() {
		t.Error("without the key: resumed")
	}
}
