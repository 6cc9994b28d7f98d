package router

import (
	"context"
	"net"
	"sync"
	"time"
)

const chunk = 16 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// pipe carries bytes both ways until either end closes or fails, ctx ends or
// life does; then it closes both.
func pipe(ctx context.Context, life <-chan struct{}, a, b net.Conn) {
	ended := make(chan struct{}, 2)
	go func() { carry(a, b); ended <- struct{}{} }()
	go func() { carry(b, a); ended <- struct{}{} }()
	left := 2
	select {
	case <-ctx.Done():
	case <-life:
	case <-ended:
		left--
	}
	_ = hard(a).Close()
	_ = hard(b).Close()
	for ; left > 0; left-- {
		<-ended
	}
}

// hard is the connection under a TLS one: closing that first would wait for a
// peer that may be gone.
func hard(c net.Conn) net.Conn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return c
}

// carry copies from from to to. An idle connection costs no buffer of its own for
// long: the database closes idle ones, and keep-alive finds dead ones.
func carry(to, from net.Conn) {
	buffer := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buffer)
	for {
		n, err := from.Read(buffer[:])
		if n > 0 {
			if e := to.SetWriteDeadline(time.Now().Add(stallTimeout)); e != nil {
				return
			}
			if _, e := to.Write(buffer[:n]); e != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
