package link_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"trivet/internal/link"
	"trivet/internal/netns"
	"trivet/internal/netns/netnstest"
)

const (
	left  = "tfw-link-1"
	right = "tfw-link-2"
)

func TestBridgeCableAddress(t *testing.T) {
	netnstest.New(t, left)
	netnstest.New(t, right)
	gateway := netip.MustParsePrefix("10.83.1.1/24")
	server := netip.MustParsePrefix("10.83.1.2/24")
	namespace, err := os.Open(netns.Path(right))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = namespace.Close() }()
	netnstest.In(t, left, func() error {
		return errors.Join(
			link.CreateBridge("br", gateway), link.CreateBridge("br", gateway), // twice: no error
			link.CreateVeth("v1", "eth0", namespace),
			link.SetMaster("v1", "br"), link.SetUp("v1"))
	})
	netnstest.In(t, right, func() error {
		return errors.Join(
			link.AddAddress("eth0", server), link.AddAddress("eth0", server),
			link.SetUp("eth0"), link.AddDefaultRoute(gateway.Addr()))
	})
	connect(t, left, right, netip.AddrPortFrom(gateway.Addr(), 7))
	netnstest.In(t, right, func() error { return checkAddress(t, server) })
	netnstest.In(t, left, func() error {
		return errors.Join(link.DeleteLink("v1"), link.DeleteLink("v1"), link.DeleteLink("br"))
	})
	netnstest.In(t, left, func() error {
		if there, err := link.Exists("br"); there || err != nil {
			t.Errorf("Exists(br) = %v, %v after deletion", there, err)
		}
		return nil
	})
}

// connect opens a connection to a listener at address, across the cable.
func connect(t *testing.T, to, from string, address netip.AddrPort) {
	t.Helper()
	l, err := netnstest.Listen(t.Context(), to, "tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	c, err := netnstest.Dial(ctx, from, "tcp", address)
	if err != nil {
		t.Fatalf("connect over the bridge: %v", err)
	}
	_ = c.Close()
}

// checkAddress looks for the address of eth0, takes it off and looks again.
func checkAddress(t *testing.T, p netip.Prefix) error {
	t.Helper()
	if name, err := link.InterfaceOf(p.Addr()); name != "eth0" || err != nil {
		t.Errorf("InterfaceOf = %q, %v, want eth0", name, err)
	}
	want := link.Carrier{Name: "eth0", Running: true, Other: true}
	if got, err := link.CarrierOf(p.Addr(), p); got != want || err != nil {
		t.Errorf("CarrierOf = %+v, %v, want %+v", got, err, want)
	}
	want.Other = false
	if got, err := link.CarrierOf(p.Addr(), netip.PrefixFrom(p.Addr(), p.Addr().BitLen())); got != want || err != nil {
		t.Errorf("CarrierOf with another length = %+v, %v, want %+v", got, err, want)
	}
	if err := errors.Join(link.DelAddress("eth0", p), link.DelAddress("eth0", p)); err != nil {
		return err
	}
	if _, err := link.CarrierOf(p.Addr(), p); !errors.Is(err, link.ErrNotFound) {
		t.Errorf("CarrierOf after deletion: %v, want ErrNotFound", err)
	}
	if _, err := link.InterfaceOf(p.Addr()); !errors.Is(err, link.ErrNotFound) {
		t.Errorf("InterfaceOf after deletion: %v, want ErrNotFound", err)
	}
	return nil
}

func TestOverlap(t *testing.T) {
	netnstest.New(t, left)
	netnstest.In(t, left, func() error {
		return errors.Join(
			link.CreateBridge("br", netip.MustParsePrefix("10.83.1.1/24")),
			link.AddDefaultRoute(netip.MustParseAddr("10.83.1.9")))
	})
	if out, err := exec.Command("ip", "-n", left, "route", "add", "10.83.64.0/18", "via", "10.83.1.9").CombinedOutput(); err != nil {
		t.Fatalf("add route: %v: %s", err, out)
	}
	for _, tc := range []struct {
		network, except, want string
	}{
		{"10.83.1.0/24", "", "interface br has 10.83.1.1/24"},
		{"10.83.0.0/16", "", "interface br has 10.83.1.1/24"},
		{"10.83.1.128/25", "", "interface br"},
		{"10.83.65.0/24", "", "a route to 10.83.64.0/18 leads over br"},
		{"10.83.1.0/24", "br", ""},
		{"10.83.2.0/24", "", ""},
	} {
		netnstest.In(t, left, func() error {
			got, err := link.Overlap(netip.MustParsePrefix(tc.network), tc.except)
			if (tc.want == "") != (got == "") || !strings.HasPrefix(got, tc.want) {
				t.Errorf("Overlap(%s, %q) = %q, want %q", tc.network, tc.except, got, tc.want)
			}
			return err
		})
	}
}
