package proxy

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"trivet/proxy/h2"
	"trivet/proxy/tunnel"
	"trivet/proxy/upstream"
	"trivet/proxy/wire"
)

// switching is the protocol that the client asks to switch to; nil: none. A
// request with a body stays what it is.
func (j *journey) switching() []byte {
	r := j.exchange.Request
	switch {
	case len(r.Protocol) > 0:
		return r.Protocol
	case len(r.Upgrade) > 0 && r.Length == 0:
		return r.Upgrade
	}
	return nil
}

// appendWebSocketKey writes what RFC 6455, 4.1, wants of a client, for one that came by HTTP/2 or 3.
func appendWebSocketKey(b []byte) []byte {
	var key [16]byte
	_, _ = rand.Read(key[:]) // it never fails
	b = append(b, "Sec-WebSocket-Key: "...)
	b = base64.StdEncoding.AppendEncode(b, key[:])
	return append(b, crlf...)
}

// hijacker is a stream that can be taken over as a connection.
type hijacker interface {
	// Hijack gives the connection, and what was read from it already.
	Hijack() (net.Conn, []byte)
}

// tunnelRun is a tunnel that the server can end.
type tunnelRun struct {
	cancel func(error)
	target string
}

// switchProtocols passes 101 on, and then bytes both ways until both have ended.
func (j *journey) switchProtocols() {
	x := j.exchange
	conn := j.conn
	rest := j.incoming.in.b[j.incoming.r:j.incoming.w]
	x.Tunnel = true
	x.watch.use(nil)
	conn.Tunnel()
	if h, ok := x.Stream.(hijacker); ok {
		j.tunnelConn(h, rest)
	} else {
		j.tunnelStream(rest)
	}
	j.conn = nil
	conn.Done(upstream.OK, false)
}

// tunnelConn joins an HTTP/1.1 connection and the target's.
func (j *journey) tunnelConn(h hijacker, rest []byte) {
	x := j.exchange
	if x.startTunnel(101, j.incoming.response.Fields) != nil || x.Flush() != nil {
		return
	}
	client, early := h.Hijack()
	t := tunnel.New(client, j.conn.Conn, 0)
	defer x.server.holdTunnel(&tunnelRun{t.Cancel, x.Target})() // before a write that nobody may take
	if _, err := client.Write(rest); err != nil {
		return
	}
	if _, err := j.conn.Write(early); err != nil {
		return
	}
	x.Sent, x.Received = int64(len(rest)), int64(len(early))
	j.incoming.give()
	up, down, err := t.Run()
	x.Received, x.Sent = x.Received+up, x.Sent+down
	x.noteTunnel(err)
}

// startTunnel begins the answer that makes a tunnel.
func (x *Exchange) startTunnel(status int, fields []wire.Field) error {
	x.started, x.Status = true, status
	x.merge(fields)
	if up := wire.Find(fields, wire.Upgrade); up != nil && status == 101 {
		x.fields = append(x.fields, wire.Field{Name: upgradeName, Value: up, Kind: wire.Upgrade})
	}
	return x.note(x.Stream.Head(status, x.fields, -1))
}

var upgradeName = []byte("Upgrade")

// noteTunnel keeps why a tunnel ended, where that was not its ends' will.
func (x *Exchange) noteTunnel(err error) {
	if err != nil {
		x.Err = err
	}
}

// holdTunnel counts a tunnel until the returned function is called.
func (s *Server) holdTunnel(t *tunnelRun) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tunnels[t] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.tunnels, t)
	}
}

// tunnelStream joins a stream of HTTP/2 or 3 and the target's connection.
func (j *journey) tunnelStream(rest []byte) {
	x, conn := j.exchange, j.conn
	fields := withoutAccept(j.incoming.response.Fields)
	if x.startTunnel(200, fields) != nil {
		return
	}
	if _, err := x.Stream.Write(rest); err != nil || x.Flush() != nil {
		return
	}
	x.Sent = int64(len(rest))
	j.incoming.give()
	_ = conn.SetDeadline(time.Time{})
	defer x.server.holdTunnel(&tunnelRun{conn.Interrupt, x.Target})()
	defer x.holdStreams()()
	x.watch.use(conn)
	var up sync.WaitGroup
	up.Go(func() { x.pourUp(conn) })
	if err := x.pourDown(conn); err != nil {
		x.noteTunnel(err)
		x.Stream.Abort()
	} else {
		_ = x.Stream.End(nil)
	}
	conn.Interrupt(errAnswered)
	up.Wait()
	x.watch.use(nil)
}

// holdStreams keeps the HTTP/2 connection of a tunnel open, as long as a tunnel
// may last, until the returned function is called.
func (x *Exchange) holdStreams() func() {
	st, ok := x.Stream.(*h2.Stream)
	if !ok {
		return func() {}
	}
	c := st.Net().(*h2Conn).owner
	c.tunnels.Add(1)
	return func() { c.tunnels.Add(-1) }
}

// withoutAccept leaves the handshake of RFC 6455 out, which HTTP/2 does not have (RFC 8441, 5).
func withoutAccept(fields []wire.Field) []wire.Field {
	kept := fields[:0]
	for _, f := range fields {
		if !f.Is("sec-websocket-accept") && !f.Kind.Framing() {
			kept = append(kept, f)
		}
	}
	return kept
}

func (x *Exchange) pourUp(conn *upstream.Conn) {
	b := takeBlock(middleBlock)
	defer b.give()
	for {
		n, err := x.Stream.Read(b.b)
		x.Received += int64(n)
		if n > 0 {
			if _, err := conn.Write(b.b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if err == io.EOF {
				_ = conn.CloseWrite() // or the target learns it when the tunnel ends
			}
			return
		}
	}
}

func (x *Exchange) pourDown(conn *upstream.Conn) error {
	b := takeBlock(middleBlock)
	defer b.give()
	for {
		n, err := conn.Read(b.b)
		if n > 0 {
			x.Sent += int64(n)
			if _, err := x.Stream.Write(b.b[:n]); err != nil {
				return err
			}
			if err := x.Stream.Flush(); err != nil {
				return err
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// Hijack gives the connection of a turn, and what was read from it already.
func (t *turn) Hijack() (net.Conn, []byte) {
	c := t.c
	c.tunnel.Store(true)
	c.unwatch()
	c.guardRead(0)
	c.guardWrite(0)
	early := t.in.b[t.r:t.w]
	t.r = t.w
	t.answer.ended = true
	return c.net, early
}
