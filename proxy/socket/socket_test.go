package socket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// pair returns two ends of a TCP connection.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func TestBothWays(t *testing.T) {
	a, b := pair(t)
	w := Wrap(a)
	if Unwrap(w) != a {
		t.Error("Unwrap does not return what was wrapped")
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20/16) // more than a socket holds
	sent := make(chan error, 1)
	go func() {
		n, err := w.Write(want)
		if err == nil && n != len(want) {
			err = io.ErrShortWrite
		}
		sent <- errors.Join(err, a.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(Wrap(b))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v, want the %d that were written", len(got), err, len(want))
	}
	if err := <-sent; err != nil {
		t.Errorf("write: %v", err)
	}
}

func TestDeadline(t *testing.T) {
	a, _ := pair(t)
	w := Wrap(a)
	if err := w.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read after its deadline: %v", err)
	}
	p := make([]byte, 64<<20)
	if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := w.Write(p) // nobody reads
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
		t.Errorf("Write after its deadline: %d, %v", n, err)
	}
}

func TestBroken(t *testing.T) {
	a, b := pair(t)
	_ = b.(*net.TCPConn).SetLinger(0)
	_ = b.Close()
	w := Wrap(a)
	if _, err := w.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("Read of a reset connection: %v", err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("Write to a reset connection has no error")
	}
	_ = a.Close()
	if _, err := w.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read of a closed connection: %v", err)
	}
}

func TestNoAllocation(t *testing.T) {
	a, b := pair(t)
	x, y := Wrap(a), Wrap(b)
	p := make([]byte, 100)
	got := testing.AllocsPerRun(100, func() {
		if _, err := x.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := y.Read(p); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("%v allocations for a write and a read, want none", got)
	}
}

func TestNoSocket(t *testing.T) {
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	if Wrap(a) != a {
		t.Error("a pipe is wrapped")
	}
}
