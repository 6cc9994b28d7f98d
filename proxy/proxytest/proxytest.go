// Package proxytest has what the tests of proxy, web and balancer share: a wire
// that can be cut or frozen, the lines of a log, and the waiting for a
// condition. Only tests import it.
package proxytest

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Listen returns a listener on loopback that is closed with the test.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// Until waits for a condition, ten seconds at most.
func Until(t testing.TB, what string, met func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !met() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not so after ten seconds", what)
		}
	}
}

// Lines is what was written to an access log.
type Lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns all of it.
func (l *Lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Wire passes connections on to an address until it is told otherwise.
type Wire struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	mode  Mode
	moved *sync.Cond
	conns map[net.Conn]struct{}
	wg    sync.WaitGroup
}

// Mode is what a Wire does.
type Mode int

// The modes of a Wire.
const (
	Pass    Mode = iota
	Freeze       // connections are made and nothing passes, as by a stopped process
	Cut          // every connection, present and new, is reset
	Garbage      // new connections are answered nonsense, present ones are reset
)

// NewWire returns a wire to an address, in mode Pass.
func NewWire(t testing.TB, to string) *Wire {
	t.Helper()
	w := &Wire{l: Listen(t), to: to, conns: map[net.Conn]struct{}{}}
	w.moved = sync.NewCond(&w.mu)
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		_ = w.l.Close()
		w.Set(Cut)
		w.wg.Wait()
	})
	return w
}

// Address is where the wire begins.
func (w *Wire) Address() string { return w.l.Addr().String() }

// Set changes the mode.
func (w *Wire) Set(m Mode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mode = m
	if m == Cut || m == Garbage {
		for c := range w.conns {
			reset(c)
		}
	}
	w.moved.Broadcast()
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (w *Wire) accept() {
	for {
		c, err := w.l.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() { w.carry(c) })
	}
}

func (w *Wire) carry(c net.Conn) {
	w.mu.Lock()
	for w.mode == Freeze {
		w.moved.Wait()
	}
	mode := w.mode
	w.conns[c] = struct{}{}
	w.mu.Unlock()
	defer w.forget(c)
	switch mode {
	case Cut:
		reset(c)
		return
	case Garbage:
		_, _ = io.WriteString(c, "\x00\xffHTTP/9 nonsense\n\n")
		return
	}
	d, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	w.both(c, d)
}

func (w *Wire) forget(c net.Conn) {
	_ = c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

func (w *Wire) both(c, d net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() { w.copy(c, d) })
	wg.Go(func() { w.copy(d, c) })
	wg.Wait()
}

// copy passes bytes on while the wire is not frozen.
func (w *Wire) copy(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		w.mu.Lock()
		for w.mode == Freeze {
			w.moved.Wait()
		}
		w.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
