package h2

import (
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// script is a connection that was sent in, and whose client then says nothing.
type script struct {
	net.Conn
	in     []byte
	writes atomic.Int32
	late   chan struct{} // closed by a deadline that is over
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		<-s.late
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(p, s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		close(s.late)
	}
	return nil
}

func (s *script) Write(p []byte) (int, error) {
	s.writes.Add(1)
	return len(p), nil
}

// visit is what a browser sends: a number of requests at once.
func visit(requests int) []byte {
	p := &plain{next: 1, out: []byte(prefaceText)}
	p.frame(frameSettings, 0, 0, nil)
	e := newHeads()
	for range requests {
		p.request(e.head("a.test"))
	}
	return p.out
}

// TestIdleMemory parks connections that a browser has asked something on.
func TestIdleMemory(t *testing.T) {
	const n = 500
	cfg := &Config{Handle: hello, Park: time.Millisecond}
	conns := make([]*Conn, n)
	done := make(chan struct{}, n)
	before := heap()
	for i := range conns {
		go func() {
			conns[i] = New(&script{in: visit(3), late: make(chan struct{})}, cfg)
			if idle, err := conns[i].Serve(); !idle {
				t.Errorf("got %v, want that it is idle", err)
			}
			conns[i].net.(*script).in = nil
			done <- struct{}{}
		}()
	}
	for range conns {
		<-done
	}
	each := (heap() - before) / n
	t.Logf("%d bytes for each idle connection", each)
	if each > 5<<10 {
		t.Errorf("%d bytes for each idle connection, want at most 5 kB", each)
	}
	runtime.KeepAlive(conns)
}

// heap is what is in use after everything was collected that pools keep.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestTogether answers many small requests that came together: in few writes.
func TestTogether(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s := &script{in: visit(100), late: make(chan struct{})}
	if idle, err := New(s, &Config{Handle: hello, Park: time.Millisecond}).Serve(); !idle {
		t.Fatalf("got %v, want that it is idle", err)
	}
	if n := s.writes.Load(); n > 10 {
		t.Errorf("%d writes for 100 answers, want at most 10", n)
	}
}
