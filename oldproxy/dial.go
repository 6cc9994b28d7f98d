package proxy

import (
	"context"
	"net"
	"syscall"
	"time"
)

// How long a peer may be silent. A dead one is noticed on connections that
// only listen, too: by probes after probeIdle, each probeEvery.
const (
	dialTimeout = 500 * time.Millisecond
	probeIdle   = 5 * time.Second
	probeEvery  = 2 * time.Second
	probeCount  = 3
	userTimeout = 15 * time.Second // for what was sent; an app may be slow to read, so not shorter
)

// tcpUserTimeout is TCP_USER_TIMEOUT of tcp(7), which package syscall lacks.
const tcpUserTimeout = 0x12

// Dialer returns a function that connects to address, as TargetConfig.Dial
// wants it. Network is "tcp" or "unix".
func Dialer(network, address string) func(context.Context) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout}
	if network != "unix" {
		d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: probeIdle, Interval: probeEvery, Count: probeCount}
		d.Control = limitSilence
	}
	return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, network, address) }
}

func limitSilence(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(userTimeout.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return set
}
