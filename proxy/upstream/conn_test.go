package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"trivet/proxy/wire"
)

func TestConnectionsAreKept(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			s, g := stand(t, kind)
			if c := g.Take(Now(), false); c != nil {
				t.Fatal("a connection is kept before there was any")
			}
			c, err := g.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if c.reused {
				t.Error("a new connection is reused")
			}
			if got, want := c.Raw() != nil, kind != "tls"; got != want {
				t.Errorf("raw socket for splice: got %v, want %v", got, want)
			}
			ask(t, c, "/")
			for range 3 {
				again := g.Take(Now(), true)
				if again != c {
					t.Fatal("the kept connection is not taken")
				}
				if !again.reused {
					t.Error("a kept connection is not reused")
				}
				ask(t, again, "/")
			}
			if n := s.count(); n != 1 {
				t.Errorf("connections: got %d, want 1", n)
			}
		})
	}
}

func TestLastUsedFirst(t *testing.T) {
	g := inertTarget("a", 1)
	first, second := dialed(t, g), dialed(t, g)
	first.Done(OK, true)
	second.Done(OK, true)
	if got := g.Take(Now(), false); got != second {
		t.Error("taken: not the one that was used last")
	}
}

func TestStaleConnections(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			s, g := stand(t, kind)
			c, err := g.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ask(t, c, "/")
			s.closeAll()
			until(t, "the connection is known to be stale", c.gone)
			if got := g.Take(Now()+looksFresh+1, false); got != nil {
				t.Error("taken: a connection that its peer has closed")
			}
			if n := g.Status().Kept; n != 0 {
				t.Errorf("kept: got %d, want 0", n)
			}
		})
	}
}

func TestUnaskedBytes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	g := NewTarget(TargetConfig{Name: "a", Dial: Dialer("tcp", l.Addr().String()), State: Up})
	defer g.Retire()
	c := dialed(t, g)
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	c.Done(OK, true)
	if _, err := io.WriteString(peer, "HTTP/1.1 408 \r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	until(t, "the connection is known to be of no use", c.gone)
	if g.Take(Now(), true) != nil {
		t.Error("taken: a connection with bytes that nobody asked for")
	}
}

// TestSessionTicketIsNotStale keeps a TLS connection on which the server's
// session tickets lie unread.
func TestSessionTicketIsNotStale(t *testing.T) {
	_, g := stand(t, "tls")
	c, err := g.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	until(t, "a ticket lies there", func() bool { c.gone(); return c.poll[0].Revents&unix.POLLIN != 0 })
	c.Begin()
	c.Done(OK, true)
	if g.Take(Now(), true) != c {
		t.Fatal("not taken: a connection with a session ticket")
	}
	ask(t, c, "/")
}

func TestInterrupt(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			_, g := stand(t, kind)
			c := dialed(t, g)
			cause := errors.New("client went away")
			var wg sync.WaitGroup
			wg.Go(func() { c.Interrupt(cause) })
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: got %v, want the deadline", err)
			}
			wg.Wait()
			if got := c.Cause(); got != cause {
				t.Errorf("cause: got %v, want %v", got, cause)
			}
			c.Done(Cancelled, true)
			if s := g.Status(); s.Kept != 0 || s.InFlight != 0 || s.Failures != 0 {
				t.Errorf("after it: got %+v", s)
			}
		})
	}
}

func TestDownTakesBack(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			_, g := stand(t, kind)
			idle, answered, waits := dialed(t, g), dialed(t, g), dialed(t, g)
			idle.Done(OK, true)
			answered.Await(Now())
			if err := answered.Came(Now()); err != nil {
				t.Fatal(err)
			}
			waits.Await(Now())
			var wg sync.WaitGroup
			wg.Go(func() { g.SetState(Down, "silent") })
			if _, err := waits.Read(make([]byte, 1)); err == nil {
				t.Error("read of who waits for a head: no error")
			}
			wg.Wait()
			if err := waits.Came(Now()); err != ErrEjected {
				t.Errorf("who waits for a head: got %v, want %v", err, ErrEjected)
			}
			if err := answered.Cause(); err != nil {
				t.Errorf("who has its head: got %v, want nil", err)
			}
			answered.Done(OK, true)
			waits.Done(Cancelled, true)
			if s := g.Status(); s.Kept != 0 || s.InFlight != 0 || s.State != "down" || s.Why != "silent" {
				t.Errorf("after it: got %+v", s)
			}
			if _, err := g.Dial(t.Context()); err != ErrEjected {
				t.Errorf("dial: got %v, want %v", err, ErrEjected)
			}
			late := &Conn{Conn: inert{}, target: g}
			late.Begin()
			if err := late.Cause(); err != ErrEjected {
				t.Errorf("a request that begins just then: got %v, want %v", err, ErrEjected)
			}
		})
	}
}

func TestDialRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	suspects := make(chan *Target, 100)
	p := NewPool(PoolConfig{Suspect: func(g *Target) { suspects <- g }})
	g := NewTarget(TargetConfig{Name: "a", Dial: Dialer("tcp", l.Addr().String()), State: Up})
	p.Set(Settings{Targets: []*Target{g}, SkipRefused: time.Hour})
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if _, err := g.Dial(context.Background()); !errors.Is(err, ErrRefused) {
				t.Errorf("dial: got %v, want %v", err, ErrRefused)
			}
		})
	}
	wg.Wait()
	until(t, "the target is suspect", func() bool { return len(suspects) > 0 })
	if got := p.Choose(&Choice{}); got != nil {
		t.Error("chosen: a target that refuses connections")
	}
	if n := g.InFlight(); n != 0 {
		t.Errorf("in flight: got %d, want 0", n)
	}
}

// TestOpeningLimit has many ask at once while no opening ends.
func TestOpeningLimit(t *testing.T) {
	var mu sync.Mutex
	opening := 0
	open := make(chan struct{})
	g := NewTarget(TargetConfig{Name: "a", State: Up, Dial: func(ctx context.Context) (net.Conn, error) {
		mu.Lock()
		opening++
		mu.Unlock()
		select {
		case <-open:
			return inert{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}})
	spare := &Conn{Conn: inert{}, target: g}
	g.mu.Lock()
	g.enlist(spare)
	g.mu.Unlock()
	got := make(chan *Conn, 100)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			c, err := g.Dial(context.Background())
			if err != nil {
				t.Errorf("dial: %v", err)
				return
			}
			got <- c
		})
	}
	until(t, "all wait", func() bool { return g.InFlight() == 100 })
	until(t, "as many are opened as may be", func() bool { mu.Lock(); defer mu.Unlock(); return opening == openingLimit })
	spare.Begin()
	spare.Done(OK, true)
	if c := <-got; c != spare {
		t.Error("served first: not by the connection that was given back")
	}
	close(open)
	wg.Wait()
	if n := g.InFlight(); n != 0 {
		t.Errorf("in flight: got %d, want 0", n)
	}
}

func TestDialIsAbandoned(t *testing.T) {
	release := make(chan struct{})
	g := NewTarget(TargetConfig{Name: "a", State: Up, IdleTimeout: time.Minute, Dial: func(context.Context) (net.Conn, error) {
		<-release
		return inert{}, nil
	}})
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("client went away")
	cancel(cause)
	if _, err := g.Dial(ctx); err != cause {
		t.Errorf("dial: got %v, want %v", err, cause)
	}
	close(release)
	until(t, "the new connection is kept", func() bool { return g.Status().Kept == 1 })
}

func TestProbe(t *testing.T) {
	type verdict struct {
		Status int
		Line   string
		Bad    bool
	}
	tests := []struct {
		path string
		want verdict
	}{
		{"/", verdict{200, "ok", false}},
		{"/unwell", verdict{503, "the database is down", false}},
		{"/chunks", verdict{200, "one", false}},
		{"/interim", verdict{204, "", false}},
		{"/close", verdict{200, "to the end", false}},
		{"/nonsense", verdict{0, "", true}},
		{"/", verdict{200, "ok", false}},
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			s, g := stand(t, kind)
			g.SetState(Down, "to be checked all the same")
			for _, tt := range tests {
				status, line, err := g.Probe(t.Context(), "h", tt.path, []wire.Field{{Name: []byte("User-Agent"), Value: []byte("check")}})
				if diff := cmp.Diff(tt.want, verdict{status, line, err != nil}); diff != "" {
					t.Errorf("%s: %s (%v)", tt.path, diff, err)
				}
			}
			if n := s.count(); n > 4 {
				t.Errorf("connections: got %d, want one until it breaks", n)
			}
			ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("no answer within 20ms"))
			defer cancel()
			if _, _, err := g.Probe(ctx, "h", "/freeze", nil); err == nil || err.Error() != "no answer within 20ms" {
				t.Errorf("freeze: got %v", err)
			}
		})
	}
}
