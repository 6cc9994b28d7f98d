package proxytest

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Memory is a connection without a socket, so that a benchmark measures what a
// program does itself, and neither the kernel nor the other end.
type Memory struct {
	read   func(p []byte) (int, error)
	write  func(p []byte)
	closed chan struct{}
	once   sync.Once
}

var memoryAddress = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 40000}

// Read gives what the other end would have sent.
func (m *Memory) Read(p []byte) (int, error) { return m.read(p) }

// Write takes p.
func (m *Memory) Write(p []byte) (int, error) {
	m.write(p)
	return len(p), nil
}

// Close ends a Read that waits.
func (m *Memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

// LocalAddr and RemoteAddr are one from RFC 5737.
func (m *Memory) LocalAddr() net.Addr { return memoryAddress }

// RemoteAddr is LocalAddr.
func (m *Memory) RemoteAddr() net.Addr { return memoryAddress }

// SetDeadline does nothing, like the others: nothing waits.
func (m *Memory) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (m *Memory) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (m *Memory) SetWriteDeadline(time.Time) error { return nil }

// Answering is for upstream.TargetConfig.Dial: each connection gives answer
// for each request without a body.
func Answering(answer string) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) {
		m := &Memory{closed: make(chan struct{})}
		asked := false
		m.write = func([]byte) { asked = true }
		m.read = func(p []byte) (int, error) {
			if !asked {
				<-m.closed
				return 0, io.EOF
			}
			asked = false
			return copy(p, answer), nil
		}
		return m, nil
	}
}

// used is the processor time of this process, which says more than the clock
// where others work on the machine too.
func used() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// visitor asks the same n times.
type visitor struct {
	conn *Memory
	once bool
}

// Accept gives the visitor; then there is none until Close.
func (v *visitor) Accept() (net.Conn, error) {
	if !v.once {
		v.once = true
		return v.conn, nil
	}
	<-v.conn.closed
	return nil, net.ErrClosed
}

func (v *visitor) Close() error   { return v.conn.Close() }
func (v *visitor) Addr() net.Addr { return memoryAddress }

// Benchmark measures what serve, a server's Serve, does for request, without a body, on a connection
// that is kept. Every answer must begin with status and come in one write.
func Benchmark(b *testing.B, serve func(context.Context, net.Listener) error, request, status string) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	v := &visitor{conn: &Memory{closed: make(chan struct{})}}
	wrong, left := "", b.N
	v.conn.write = func(p []byte) {
		if !bytes.HasPrefix(p, []byte(status)) && wrong == "" {
			wrong = string(p)
		}
	}
	v.conn.read = func(p []byte) (int, error) {
		if left--; left < 0 {
			stop()
			return 0, io.EOF
		}
		return copy(p, request), nil
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := used()
	if err := serve(ctx, v); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op")
	if wrong != "" {
		b.Fatalf("answer: got %q, want %q", wrong, status)
	}
}
