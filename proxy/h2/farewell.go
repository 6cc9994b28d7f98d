package h2

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trivet/proxy/socket"
)

const (
	// farewell bounds what a connection that is over may still take.
	farewell = 500 * time.Millisecond
	// partStep is how often it is looked whether a client still takes what is queued for it.
	partStep = time.Second
	// partLimit bounds the parting in all, as a multiple of the time without progress.
	partLimit = 10
)

// linger reads what is under way, so that the last words are not lost to a reset.
func linger(n net.Conn, b []byte) {
	if half, ok := n.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = n.SetReadDeadline(time.Now().Add(farewell))
	for range 64 {
		if _, err := n.Read(b); err != nil {
			return
		}
	}
}

// part ends our side of a connection that has said all, and waits until the
// client has ended its own, nothing has moved for still, or it has taken very long. A socket that is
// closed at once answers the WINDOW_UPDATEs for what the client reads by a
// reset, and that throws away what was not delivered.
func part(n net.Conn, b []byte, still time.Duration) {
	halfClose(n)
	moved, left := time.Now(), unsent(n)
	end := moved.Add(partLimit * still)
	beneath := bottom(n) // what comes is of no interest, so it needs no decrypting
	for time.Since(moved) < still && time.Now().Before(end) {
		_ = beneath.SetReadDeadline(time.Now().Add(min(partStep, still)))
		_, err := beneath.Read(b)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if now := unsent(n); err == nil || now < left {
			moved, left = time.Now(), now
		}
	}
}

// halfClose ends our side: of TLS, and of what is beneath.
func halfClose(n net.Conn) {
	for n != nil {
		if half, ok := n.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		n = below(n)
	}
}

// below is what n is made on; nil: n is all there is.
func below(n net.Conn) net.Conn {
	if over, ok := n.(interface{ NetConn() net.Conn }); ok {
		return over.NetConn()
	}
	if w := socket.Unwrap(n); w != n {
		return w
	}
	return nil
}

func bottom(n net.Conn) net.Conn {
	for b := below(n); b != nil; b = below(n) {
		n = b
	}
	return n
}

// unsent is how many bytes the kernel has for the client that it did not confirm; 0 if that is not known.
func unsent(n net.Conn) (queued int) {
	sc, ok := bottom(n).(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { queued, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return queued
}
