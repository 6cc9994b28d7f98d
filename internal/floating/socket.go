package floating

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a raw socket for whole packets, without a header of the layer below.
type socket int

func openSocket(domain, kind, protocol int) (socket, error) {
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return -1, fmt.Errorf("open raw socket: %w", err)
	}
	return socket(fd), nil
}

func (s socket) close() { _ = unix.Close(int(s)) }

func (s socket) send(packet []byte, to unix.Sockaddr) error {
	if err := unix.Sendto(int(s), packet, 0, to); err != nil {
		return fmt.Errorf("send packet: %w", err)
	}
	return nil
}

// hear waits for a packet by which another than nic speaks, and returns its MAC;
// nil if none came in time or ctx ended. who says whose MAC a packet tells, if any.
func (s socket) hear(ctx context.Context, by time.Time, nic *net.Interface, who func([]byte) (net.HardwareAddr, bool)) (net.HardwareAddr, error) {
	for {
		p, err := s.receive(ctx, by)
		if p == nil || err != nil {
			return nil, err
		}
		if mac, ok := who(p); ok && !bytes.Equal(mac, nic.HardwareAddr) {
			return mac, nil
		}
	}
}

// receive returns the next packet, or nil if none came in time or ctx ended.
func (s socket) receive(ctx context.Context, by time.Time) ([]byte, error) {
	buffer := make([]byte, 1500)
	for ctx.Err() == nil {
		left := time.Until(by)
		if left <= 0 {
			return nil, nil
		}
		// Short waits, so that the end of ctx is seen soon.
		wait := min(left, 50*time.Millisecond)
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(s), Events: unix.POLLIN}}, int(wait.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("wait for packet: %w", err)
		}
		n, _, err := unix.Recvfrom(int(s), buffer, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("receive packet: %w", err)
		}
		return buffer[:n], nil
	}
	return nil, nil
}
