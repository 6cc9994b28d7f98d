package tunnel

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Sizes of buffers. A direction that cannot be left waiting without a buffer
// waits with a small one, and takes a large one once a read has filled that.
const (
	smallBuffer = 2 << 10
	largeBuffer = 32 << 10
)

var (
	small = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	large = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// copyAll moves src's bytes to dst until src ends, where one of them is no plain socket.
func copyAll(dst, src net.Conn, moved *atomic.Int64) error {
	n := smallBuffer
	for {
		var err error
		if n < smallBuffer {
			n, err = copySmall(dst, src)
		} else {
			n, err = copyLarge(dst, src)
		}
		moved.Add(int64(n))
		if err != nil {
			return orEnd(err)
		}
	}
}

func copySmall(dst, src net.Conn) (int, error) {
	b := small.Get().(*[smallBuffer]byte)
	defer small.Put(b)
	return copyOnce(dst, src, b[:])
}

func copyLarge(dst, src net.Conn) (int, error) {
	b := large.Get().(*[largeBuffer]byte)
	defer large.Put(b)
	return copyOnce(dst, src, b[:])
}

func copyOnce(dst, src net.Conn, b []byte) (int, error) {
	n, err := src.Read(b)
	if n == 0 {
		return 0, err
	}
	w, werr := dst.Write(b[:n])
	if werr != nil {
		return w, &Error{Write: true, Err: werr}
	}
	return w, err
}

func orEnd(err error) error {
	var ours *Error
	if errors.Is(err, io.EOF) {
		return nil
	}
	if errors.As(err, &ours) {
		return err
	}
	return &Error{Err: err}
}
