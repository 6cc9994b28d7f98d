// Package socket reads and writes connected sockets for less than package net
// does: by recv(2) and send(2), which do without the kernel's file layer that
// read(2) and write(2) pass, and, where little is moved, without telling the
// scheduler of a call that cannot block. Waiting, deadlines and closing are
// those of the net.Conn beneath.
package socket

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// Socket reads and writes one socket. Like a net.Conn it may be read by one
// goroutine while another writes, but only by one each. The zero Socket has none.
type Socket struct {
	raw syscall.RawConn

	in, out           []byte
	got               int
	readErr, writeErr syscall.Errno
	// Made once, for a method's value would be allocated at each call.
	receive, send func(fd uintptr) bool
}

// Of returns the socket of c, or nil if it is none that this package can read and write.
func Of(c net.Conn) syscall.RawConn {
	switch c := c.(type) {
	case *net.TCPConn:
		raw, _ := c.SyscallConn()
		return raw
	case *net.UnixConn:
		raw, _ := c.SyscallConn()
		return raw
	}
	return nil
}

// Use makes s that of raw; nil: of none.
func (s *Socket) Use(raw syscall.RawConn) {
	s.raw = raw
	if s.receive == nil {
		s.receive, s.send = s.receiveOnce, s.sendAll
	}
}

// Ready says whether s has a socket.
func (s *Socket) Ready() bool { return s.raw != nil }

// Read is that of net.Conn.
func (s *Socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.in, s.got, s.readErr = p, 0, 0
	err := s.raw.Read(s.receive)
	s.in = nil
	switch {
	case s.got > 0:
		return s.got, nil
	case err != nil:
		return 0, err
	case s.readErr != 0:
		return 0, os.NewSyscallError("recv", s.readErr)
	}
	return 0, io.EOF
}

// Write is that of net.Conn.
func (s *Socket) Write(p []byte) (int, error) {
	s.out, s.writeErr = p, 0
	err := s.raw.Write(s.send)
	n := len(p) - len(s.out)
	s.out = nil
	if err == nil && s.writeErr != 0 {
		err = os.NewSyscallError("send", s.writeErr)
	}
	return n, err
}

func (s *Socket) receiveOnce(fd uintptr) bool {
	for {
		n, errno := Receive(fd, s.in)
		switch errno {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		}
		s.got, s.readErr = n, errno
		return true
	}
}

func (s *Socket) sendAll(fd uintptr) bool {
	for len(s.out) > 0 {
		n, errno := Send(fd, s.out)
		switch errno {
		case 0:
			s.out = s.out[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			s.writeErr = errno
			return true
		}
	}
	return true
}

// Receive reads from a non-blocking socket into p, which is not empty.
func Receive(fd uintptr, p []byte) (int, syscall.Errno) { return call(syscall.SYS_RECVFROM, fd, p, 0) }

// Send writes p, which is not empty, to a non-blocking socket.
func Send(fd uintptr, p []byte) (int, syscall.Errno) {
	return call(syscall.SYS_SENDTO, fd, p, syscall.MSG_NOSIGNAL)
}

// short is what is copied so fast that the scheduler need not know.
const short = 64 << 10

// call is recvfrom(2) or sendto(2) without an address.
func call(number, fd uintptr, p []byte, flags uintptr) (int, syscall.Errno) {
	var n uintptr
	var errno syscall.Errno
	if len(p) <= short {
		n, _, errno = syscall.RawSyscall6(number, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
	} else {
		n, _, errno = syscall.Syscall6(number, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), flags, 0, 0)
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// Conn is a net.Conn that is read and written as a Socket.
type Conn struct {
	net.Conn // for all else
	socket   Socket
}

// Wrap returns c as a *Conn, or c itself if it is no socket.
func Wrap(c net.Conn) net.Conn {
	raw := Of(c)
	if raw == nil {
		return c
	}
	w := &Conn{Conn: c}
	w.socket.Use(raw)
	return w
}

// Unwrap returns what c was made of.
func Unwrap(c net.Conn) net.Conn {
	if w, ok := c.(*Conn); ok {
		return w.Conn
	}
	return c
}

// Read reads.
func (c *Conn) Read(p []byte) (int, error) { return c.socket.Read(p) }

// Write writes.
func (c *Conn) Write(p []byte) (int, error) { return c.socket.Write(p) }
