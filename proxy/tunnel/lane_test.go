package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// oneLane is a lane with the far ends of its sockets, and what it moved.
func oneLane(t *testing.T, network string) (l *lane, from, to net.Conn, moved *atomic.Int64) {
	from, src := pair(t, network)
	to, dst := pair(t, network)
	moved = new(atomic.Int64)
	l = &lane{Raw(dst), Raw(src), takeMover(), moved}
	t.Cleanup(l.give)
	return l, from, to, moved
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("after 10 s still not: %s", what)
		}
	}
}

func TestPassMovesWhatIsThere(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		l, from, to, moved := oneLane(t, network)
		if l.pass() {
			t.Errorf("%s: passed something where there was nothing", network)
		}
		send(t, from, []byte("hello"))
		until(t, "message passed", l.pass)
		got := make([]byte, 5)
		if _, err := io.ReadFull(to, got); err != nil || string(got) != "hello" {
			t.Errorf("%s: got %q, %v, want hello", network, got, err)
		}
		if moved.Load() != 5 {
			t.Errorf("%s: counted %d bytes, want 5", network, moved.Load())
		}
		l.mover.mu.Lock()
		send(t, from, []byte("x"))
		if l.pass() {
			t.Errorf("%s: passed what its owner was moving", network)
		}
		l.mover.mu.Unlock()
	}
}

// TestPassLeavesTheRest: what the other side does not take is moved by the owner, in order.
func TestPassLeavesTheRest(t *testing.T) {
	l, from, to, moved := oneLane(t, "tcp")
	filled := fillUp(t, l)
	message := random(t, 5000)
	send(t, from, message)
	until(t, "message read", func() bool { return l.pass() || l.mover.n > 0 })
	if l.mover.n == 0 {
		t.Fatal("a full socket has taken the message")
	}
	if l.pass() {
		t.Error("passed more before the rest was gone")
	}
	rest := make(chan []byte)
	go func() {
		b := make([]byte, filled+len(message))
		_, _ = io.ReadFull(to, b)
		rest <- b[filled:]
	}()
	n, err := l.mover.move(l.dst, l.src)
	if err != nil || moved.Load()+int64(n) != int64(len(message)) {
		t.Errorf("moved %d and %d bytes, %v, want %d in all", moved.Load(), n, err, len(message))
	}
	if got := <-rest; !bytes.Equal(got, message) {
		t.Error("the message came changed")
	}
}

// TestPassLeavesTheEnd: an end is told to the owner, and an error not as an end.
func TestPassLeavesTheEnd(t *testing.T) {
	l, from, _, _ := oneLane(t, "tcp")
	_ = from.(*net.TCPConn).SetLinger(0)
	_ = from.Close()
	until(t, "reset noticed", func() bool { return l.pass() || l.mover.err != nil })
	if _, err := l.mover.move(l.dst, l.src); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
	l, from, _, _ = oneLane(t, "tcp")
	_ = from.Close()
	if n, err := l.mover.move(l.dst, l.src); n != 0 || err != nil {
		t.Errorf("got %d, %v, want an end", n, err)
	}
	if l.pass() {
		t.Error("passed something after the end")
	}
}

func send(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// fillUp fills what l writes to, and says with how many bytes.
func fillUp(t *testing.T, l *lane) (filled int) {
	t.Helper()
	b := make([]byte, 64<<10)
	for still := 0; still < 2; { // room may come once more: the other side's buffer grows
		err := l.dst.Control(func(fd uintptr) {
			n, err := syscall.Write(int(fd), b)
			if err != nil {
				still++
				return
			}
			filled += n
			still = 0
		})
		if err != nil {
			t.Fatal(os.NewSyscallError("write", err))
		}
	}
	return filled
}

// TestTunnelEchoes: many tunnels in which each message is answered, both ways at once.
func TestTunnelEchoes(t *testing.T) {
	const tunnels, messages = 16, 200
	done := make(chan error, tunnels)
	for range tunnels {
		client, a := pair(t, "tcp")
		b, server := pair(t, "tcp")
		over := run(New(a, b, time.Minute))
		go func() { _, _ = io.Copy(struct{ io.Writer }{server}, server); _ = server.Close() }()
		go func() {
			err := echo(client, messages)
			_ = client.Close()
			<-over
			done <- err
		}()
	}
	for range tunnels {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// echo sends messages of different lengths and wants each back.
func echo(c net.Conn, messages int) error {
	for i := range messages {
		want := bytes.Repeat([]byte{byte(i)}, 1+i*i)
		if _, err := c.Write(want); err != nil {
			return err
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return errors.New("a message came back changed")
		}
	}
	return nil
}
