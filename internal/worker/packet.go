package worker

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// packetGrace is how long a process that gives way may still read packets.
const packetGrace = 2 * time.Second

// PacketConn is a UDP socket that node opened. Two processes have it for a
// moment while one takes over from the other, and only one may read from it:
// the new one waits for Turn, the old one has two seconds from the end of its
// part's context to finish, after which it is closed under its hands. What
// the old one had spoken over it does not go on in the new one.
type PacketConn struct {
	*net.UDPConn
	turn   <-chan struct{}
	closed chan struct{}
	once   sync.Once
}

// PacketConn returns the packet socket of that name. Whoever reads from it
// waits for its Turn first, and closes it when done.
func (e *Env) PacketConn(name string) (*PacketConn, error) {
	f, ok := e.files[name]
	if !ok {
		return nil, fmt.Errorf("node handed over no packet socket %q", name)
	}
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("use packet socket %q: %w", name, err)
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("use packet socket %q: it is a %T", name, c)
	}
	p := &PacketConn{UDPConn: u, turn: e.turn, closed: make(chan struct{})}
	e.packets = append(e.packets, p)
	return p, nil
}

// Turn is closed when this process may read: at once, unless it takes over from another.
func (c *PacketConn) Turn() <-chan struct{} { return c.turn }

// Close gives the socket up; node and the next process keep it.
func (c *PacketConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = c.UDPConn.Close()
		close(c.closed)
	})
	return err
}
