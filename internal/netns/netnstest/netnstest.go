// Package netnstest makes network namespaces that live as long as a test, and
// speaks from inside them. Only tests import it.
package netnstest

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"

	"trivet/internal/netns"
)

// New makes a namespace, in place of one of that name that a former run left.
// Without root the test is skipped.
func New(t testing.TB, name string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	if err := netns.Delete(name); err != nil {
		t.Fatal(err)
	}
	if err := netns.Create(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns.Delete(name) })
}

// In runs f inside the namespace; its error fails the test. See netns.Do.
func In(t testing.TB, name string, f func() error) {
	t.Helper()
	if err := netns.Do(name, f); err != nil {
		t.Fatal(err)
	}
}

// Dial connects from inside the namespace to an address and port. It takes no
// name of a host: that would be looked up by another goroutine, outside.
func Dial(ctx context.Context, name, network string, to netip.AddrPort) (conn net.Conn, err error) {
	err = netns.Do(name, func() error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, to.String())
		return err
	})
	return conn, err
}

// Listen opens a stream listener inside the namespace.
func Listen(ctx context.Context, name, network, address string) (l net.Listener, err error) {
	err = netns.Do(name, func() error {
		var c net.ListenConfig
		l, err = c.Listen(ctx, network, address)
		return err
	})
	return l, err
}
