package lab

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"trivet/internal/netns"
)

// Loss of one way leaves the other as it is.
func TestLose(t *testing.T) {
	b := newBench(t)
	b.startAll()
	conn, _ := b.up("s3")
	for _, way := range []Way{In, Out} {
		must(t, b.lab.Lose(t.Context(), "s3", way, 50)) // is replaced
		must(t, b.lab.Lose(t.Context(), "s3", way, 100))
		b.wantState("s3", Running)
		if got, want := b.arrives("s3", In), way != In; got != want {
			t.Errorf("what is sent to a server that loses the way %s: it arrives: %v, want %v", way, got, want)
		}
		if got, want := b.arrives("s3", Out), way != Out; got != want {
			t.Errorf("what is sent by a server that loses the way %s: it arrives: %v, want %v", way, got, want)
		}
		must(t, b.lab.Heal(t.Context(), "s3"))
		b.wantEcho(conn)
	}
	must(t, b.lab.Lose(t.Context(), "s3", In, 100))
	must(t, b.lab.Kill(t.Context(), "s3"))
	must(t, b.lab.Start(t.Context(), "s3", b.exe))
	b.up("s3")
	for _, percent := range []int{0, 101} {
		if err := b.lab.Lose(t.Context(), "s3", In, percent); err == nil {
			t.Errorf("lose %d per cent: got no error", percent)
		}
	}
	if err := b.lab.Lose(t.Context(), "s3", "up", 10); err == nil {
		t.Error("lose a way that there is not: got no error")
	}
}

// Some of the packets get lost, and some do not.
func TestLoseSome(t *testing.T) {
	b := newBench(t)
	must(t, b.lab.Start(t.Context(), "s3", b.exe))
	b.up("s3")
	must(t, b.lab.Lose(t.Context(), "s3", In, 50))
	to, from := b.sockets("s3")
	const all = 400
	for range all {
		_, err := from.WriteTo([]byte("x"), to.LocalAddr())
		must(t, err)
	}
	got := 0
	for must(t, to.SetReadDeadline(time.Now().Add(500*time.Millisecond))); ; got++ {
		if _, _, err := to.ReadFrom(make([]byte, 1)); err != nil {
			break
		}
	}
	if got < all/4 || got > all*3/4 {
		t.Errorf("%d of %d packets arrived at 50 per cent loss", got, all)
	}
}

// sockets are one inside the server and one of this machine.
func (b *bench) sockets(server string) (inside, here net.PacketConn) {
	b.Helper()
	listen := func(a netip.Addr) net.PacketConn {
		c, err := net.ListenPacket("udp4", netip.AddrPortFrom(a, 0).String())
		must(b.T, err)
		b.Cleanup(func() { _ = c.Close() })
		return c
	}
	must(b.T, netns.Do(b.lab.Namespace(server), func() error { inside = listen(b.lab.Address(server)); return nil }))
	return inside, listen(b.lab.Operator())
}

// arrives reports whether a packet gets over the server's cable.
func (b *bench) arrives(server string, way Way) bool {
	b.Helper()
	to, from := b.sockets(server)
	if way == Out {
		to, from = from, to
	}
	_, err := from.WriteTo([]byte("x"), to.LocalAddr())
	must(b.T, err)
	must(b.T, to.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	_, _, err = to.ReadFrom(make([]byte, 1))
	return err == nil
}
