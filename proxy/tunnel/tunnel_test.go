package tunnel

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// pair is both ends of a connection of network "tcp", "unix" or "pipe".
func pair(t testing.TB, network string) (net.Conn, net.Conn) {
	t.Helper()
	if network == "pipe" {
		a, b := net.Pipe()
		t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
		return a, b
	}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	a, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// hidden is a plain socket that does not show itself, as that of TLS.
type hidden struct{ *net.TCPConn }

func (hidden) Raw() (none rawConn) { return nil }

func random(t testing.TB, n int) []byte {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

type result struct {
	toB, toA int64
	err      error
}

func run(tun *Tunnel) chan result {
	done := make(chan result, 1)
	go func() {
		var r result
		r.toB, r.toA, r.err = tun.Run()
		done <- r
	}()
	return done
}

func wait(t testing.TB, done chan result) result {
	t.Helper()
	select {
	case r := <-done:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("the tunnel did not end within 10 s")
		return result{}
	}
}

func TestTunnelCarriesBothWaysAndPassesTheEndOn(t *testing.T) {
	for _, c := range []struct {
		name, a, b string
		hide       bool
	}{
		{"tcp to tcp", "tcp", "tcp", false},
		{"tcp to unix", "tcp", "unix", false},
		{"unix to tcp", "unix", "tcp", false},
		{"tcp to one that is not plain", "tcp", "tcp", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, a := pair(t, c.a)
			b, server := pair(t, c.b)
			if c.hide {
				b = hidden{b.(*net.TCPConn)}
			}
			done := run(New(a, b, time.Minute))
			up, down := random(t, 3<<20+17), random(t, 1<<20+3)
			go func() {
				_, _ = client.Write(up[:5])
				_, _ = client.Write(up[5:])
				_ = client.(interface{ CloseWrite() error }).CloseWrite()
			}()
			got, err := io.ReadAll(server)
			if err != nil || !bytes.Equal(got, up) {
				t.Fatalf("server got %d bytes, %v; want the %d that the client sent", len(got), err, len(up))
			}
			go func() {
				_, _ = server.Write(down)
				_ = server.Close()
			}()
			got, err = io.ReadAll(client)
			if err != nil || !bytes.Equal(got, down) {
				t.Fatalf("client got %d bytes, %v; want the %d that the server sent", len(got), err, len(down))
			}
			if got, want := wait(t, done), (result{int64(len(up)), int64(len(down)), nil}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestTunnelEnds(t *testing.T) {
	stop := errors.New("stop")
	for _, c := range []struct {
		name string
		idle time.Duration
		act  func(tun *Tunnel, client, server net.Conn)
		want error
	}{
		{"idle", 40 * time.Millisecond, func(*Tunnel, net.Conn, net.Conn) {}, ErrIdle},
		{"cancelled", 0, func(tun *Tunnel, _, _ net.Conn) { tun.Cancel(stop) }, stop},
		{"cancelled without a cause", 0, func(tun *Tunnel, _, _ net.Conn) { tun.Cancel(nil) }, ErrCancelled},
		{"reset", 0, func(_ *Tunnel, client, _ net.Conn) {
			_ = client.(*net.TCPConn).SetLinger(0)
			_ = client.Close()
		}, os.NewSyscallError("", nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, a := pair(t, "tcp")
			b, server := pair(t, "tcp")
			tun := New(a, b, c.idle)
			done := run(tun)
			c.act(tun, client, server)
			got := wait(t, done).err
			if c.want != nil && !errors.Is(got, c.want) || got == nil {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestTunnelCancelledBeforeRun(t *testing.T) {
	_, a := pair(t, "tcp")
	b, _ := pair(t, "tcp")
	tun := New(a, b, time.Minute)
	tun.Cancel(nil)
	if got := wait(t, run(tun)).err; !errors.Is(got, ErrCancelled) {
		t.Errorf("got %v, want %v", got, ErrCancelled)
	}
}

func TestTunnelIsNotIdleWhileBytesCome(t *testing.T) {
	client, a := pair(t, "tcp")
	b, server := pair(t, "tcp")
	idle := 200 * time.Millisecond
	done := run(New(a, b, idle))
	tick := time.NewTicker(idle / 4)
	defer tick.Stop()
	one := []byte{1}
	for range 10 { // 2.5 times the limit
		<-tick.C
		if _, err := client.Write(one); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, one); err != nil {
			t.Fatalf("tunnel ended: %v", err)
		}
	}
	if got := wait(t, done); got != (result{10, 0, ErrIdle}) {
		t.Errorf("got %+v, want 10 bytes and %v", got, ErrIdle)
	}
}

func TestSpliceMovesExactlyN(t *testing.T) {
	for _, n := range []int{0, 1, 100, largeBuffer, largeBuffer + 1, pipeSize, 5<<20 + 11} {
		client, src := pair(t, "tcp")
		dst, server := pair(t, "unix")
		want := random(t, n)
		go func() {
			_, _ = client.Write(want)
			_, _ = client.Write([]byte("next"))
		}()
		got := make(chan []byte, 1)
		go func() {
			b := make([]byte, n)
			_, _ = io.ReadFull(server, b)
			got <- b
		}()
		if k, err := Splice(Raw(dst), Raw(src), int64(n), nil); k != int64(n) || err != nil {
			t.Fatalf("Splice of %d: got %d, %v", n, k, err)
		}
		if !bytes.Equal(<-got, want) {
			t.Errorf("Splice of %d: bytes differ", n)
		}
		rest := make([]byte, 4)
		if _, err := io.ReadFull(src, rest); err != nil || string(rest) != "next" {
			t.Errorf("after Splice of %d, src holds %q, %v; want the next four bytes", n, rest, err)
		}
	}
}

func TestSpliceSaysWhichEndBroke(t *testing.T) {
	for _, c := range []struct {
		name  string
		act   func(dst, src, client, server net.Conn)
		write bool
		want  error
	}{
		{"source ends early", func(_, _, client, _ net.Conn) { _, _ = client.Write([]byte("abc")); _ = client.Close() }, false, io.ErrUnexpectedEOF},
		{"source is late", func(_, src, _, _ net.Conn) { _ = src.SetReadDeadline(time.Unix(1, 0)) }, false, os.ErrDeadlineExceeded},
		{"destination is late", func(dst, _, client, _ net.Conn) {
			_, _ = client.Write([]byte("abc"))
			_ = dst.SetWriteDeadline(time.Unix(1, 0))
		}, true, os.ErrDeadlineExceeded},
		{"source is closed here", func(_, src, _, _ net.Conn) { _ = src.Close() }, false, net.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, src := pair(t, "tcp")
			dst, server := pair(t, "tcp")
			c.act(dst, src, client, server)
			_, err := Splice(Raw(dst), Raw(src), 1<<20, nil)
			var e *Error
			if !errors.As(err, &e) || e.Write != c.write || !errors.Is(err, c.want) {
				t.Errorf("got %#v, want an Error with Write %v of %v", err, c.write, c.want)
			}
		})
	}
}

func TestSpliceDeadlineWhileWaiting(t *testing.T) {
	client, src := pair(t, "tcp")
	dst, _ := pair(t, "tcp") // nobody reads there
	go func() {
		for b := make([]byte, 1<<20); ; {
			if _, err := client.Write(b); err != nil {
				return
			}
		}
	}()
	_ = dst.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	n, err := Splice(Raw(dst), Raw(src), 1<<40, nil)
	var e *Error
	if !errors.As(err, &e) || !e.Write || n == 0 {
		t.Errorf("got %d, %v; want a part moved and the write's deadline", n, err)
	}
}

func TestMovingAllocatesNothing(t *testing.T) {
	if racing {
		t.Skip("needs pools as they are: the race detector has them forget")
	}
	for _, n := range []int{100, 200 << 10} {
		client, src := pair(t, "tcp")
		dst, server := pair(t, "tcp")
		from, to := Raw(src), Raw(dst)
		b := make([]byte, n)
		got := testing.AllocsPerRun(100, func() {
			_, _ = client.Write(b)
			if _, err := Splice(to, from, int64(n), nil); err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadFull(server, b)
		})
		if got > 0.5 {
			t.Errorf("Splice of %d bytes: got %v allocations, want 0", n, got)
		}
	}
}

func TestWaitingTunnelHoldsNoPipe(t *testing.T) {
	client, a := pair(t, "tcp")
	b, server := pair(t, "tcp")
	tun := New(a, b, 0)
	done := run(tun)
	big := random(t, 4<<20)
	go func() { _, _ = client.Write(big) }()
	if _, err := io.ReadFull(server, make([]byte, len(big))); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc:", err)
	}
	open := 0
	for _, e := range entries {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); len(to) > 4 && to[:4] == "pipe" {
			open++
		}
	}
	pipes.Lock()
	kept := len(pipes.kept)
	pipes.Unlock()
	// Standard input and output may be pipes, too.
	if open > 2*kept+3 {
		t.Errorf("%d descriptors of pipes are open, %d pipes kept: a waiting tunnel holds one", open, kept)
	}
	tun.Cancel(nil)
	wait(t, done)
}

func TestReadsAndWritesUntilRawIsHidden(t *testing.T) {
	a, b := pair(t, "tcp")
	if Raw(a) == nil || Raw(b) == nil {
		t.Error("a TCP connection has no raw socket")
	}
	if Raw(hidden{a.(*net.TCPConn)}) != nil {
		t.Error("a hidden socket shows itself")
	}
	p, _ := pair(t, "pipe")
	if Raw(p) != nil {
		t.Error("a pipe in memory has a raw socket")
	}
}

func BenchmarkSplice(b *testing.B) {
	for _, c := range []struct {
		name string
		copy func(dst, src net.Conn, n int64) error
	}{
		{"Splice", func(dst, src net.Conn, n int64) error { _, err := Splice(Raw(dst), Raw(src), n, nil); return err }},
		{"net", func(dst, src net.Conn, n int64) error {
			_, err := dst.(*net.TCPConn).ReadFrom(io.LimitReader(src, n))
			return err
		}},
		{"copy", func(dst, src net.Conn, n int64) error {
			buf := make([]byte, 32<<10)
			_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{io.LimitReader(src, n)}, buf)
			return err
		}},
	} {
		for _, size := range []int64{1 << 10, 16 << 10, 64 << 10, 10 << 20} {
			b.Run(c.name+"/"+byteSize(size), func(b *testing.B) {
				client, src := pair(b, "tcp")
				dst, server := pair(b, "tcp")
				go func() {
					for p := make([]byte, 256<<10); ; {
						if _, err := client.Write(p); err != nil {
							return
						}
					}
				}()
				go func() { _, _ = io.Copy(struct{ io.Writer }{io.Discard}, server) }()
				b.SetBytes(size)
				b.ReportAllocs()
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				start := cpu()
				for b.Loop() {
					if err := c.copy(dst, src, size); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(cpu()-start)/float64(b.N)/1000, "cpu-us/op")
			})
		}
	}
}
