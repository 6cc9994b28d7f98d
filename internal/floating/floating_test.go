package floating_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"trivet/internal/floating"
	"trivet/internal/link"
	"trivet/internal/netns"
	"trivet/internal/netns/netnstest"
)

const (
	hub   = "tfw-fl-0" // the bridge, and the neighbour that connects
	left  = "tfw-fl-1"
	right = "tfw-fl-2"
)

// family is the addresses of one test.
type family struct {
	name             string
	hub, left, right netip.Prefix
	floating         netip.Addr
}

var families = []family{
	{
		"IPv4", netip.MustParsePrefix("10.83.2.1/24"), netip.MustParsePrefix("10.83.2.11/24"),
		netip.MustParsePrefix("10.83.2.12/24"), netip.MustParseAddr("10.83.2.10"),
	},
	{
		"IPv6", netip.MustParsePrefix("fd83:2::1/64"), netip.MustParsePrefix("fd83:2::11/64"),
		netip.MustParsePrefix("fd83:2::12/64"), netip.MustParseAddr("fd83:2::10"),
	},
}

// network cables left and right to hub, and serves on port 7 in both.
func network(t *testing.T, f family) {
	t.Helper()
	netnstest.New(t, hub)
	netnstest.In(t, hub, func() error { return link.CreateBridge("br", f.hub) })
	for name, prefix := range map[string]netip.Prefix{left: f.left, right: f.right} {
		netnstest.New(t, name)
		file, err := os.Open(netns.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		netnstest.In(t, hub, func() error {
			return errors.Join(link.CreateVeth(name, "eth0", file), link.SetMaster(name, "br"), link.SetUp(name))
		})
		netnstest.In(t, name, func() error { return errors.Join(link.AddAddress("eth0", prefix), link.SetUp("eth0")) })
		serve(t, name, map[bool]string{false: "tcp4", true: "tcp6"}[f.floating.Is6()])
	}
}

// serve answers every connection to port 7 by name.
func serve(t *testing.T, name, kind string) {
	t.Helper()
	l, err := netnstest.Listen(t.Context(), name, kind, ":7")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-ended })
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, name)
			_ = c.Close()
		}
	}()
}

// answerer connects to the floating address once and says who answered.
func answerer(t *testing.T, f family) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := netnstest.Dial(ctx, hub, "tcp", netip.AddrPortFrom(f.floating, 7))
	if err != nil {
		return err.Error()
	}
	defer func() { _ = c.Close() }()
	name, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(name)
}

// holder is the floating address as a namespace sees it.
type holder struct {
	*floating.Address
	name string
}

func (h holder) hold(t *testing.T) {
	t.Helper()
	netnstest.In(t, h.name, func() error { return h.Hold(t.Context()) })
}

func (h holder) release(t *testing.T) {
	t.Helper()
	netnstest.In(t, h.name, func() error { return h.Release(t.Context()) })
}

func (h holder) held(t *testing.T) (held bool) {
	t.Helper()
	netnstest.In(t, h.name, func() (err error) {
		held, _, err = h.Look()
		return err
	})
	return held
}

func (h holder) probe(t *testing.T) (taken bool, mac net.HardwareAddr) {
	t.Helper()
	netnstest.In(t, h.name, func() (err error) {
		taken, mac, err = h.Probe(t.Context())
		return err
	})
	return taken, mac
}

func TestFailover(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			network(t, f)
			l := holder{floating.New(f.floating, f.left.Addr(), slog.New(slog.DiscardHandler)), left}
			r := holder{floating.New(f.floating, f.right.Addr(), slog.New(slog.DiscardHandler)), right}

			if taken, mac := r.probe(t); taken {
				t.Errorf("probe of a free address: taken by %s", mac)
			}
			l.hold(t)
			l.hold(t)
			if got := answerer(t, f); got != left {
				t.Fatalf("held by left: %s answers", got)
			}
			if taken, mac := r.probe(t); !taken || mac.String() != macOf(t, left) {
				t.Errorf("probe of a held address = %v, %s, want true, %s", taken, mac, macOf(t, left))
			}
			if taken, mac := l.probe(t); taken {
				t.Errorf("probe by its holder: taken by %s", mac)
			}

			l.release(t)
			l.release(t)
			r.hold(t)
			if got := answerer(t, f); got != right {
				t.Errorf("moved to right: %s answers", got)
			}
			if l.held(t) || !r.held(t) {
				t.Errorf("held by left, right = %v, %v, want false, true", l.held(t), r.held(t))
			}

			netnstest.In(t, right, func() error { return link.SetDown("eth0") }) // dies holding it
			l.hold(t)
			if got := answerer(t, f); got != left {
				t.Errorf("moved from a dead server: %s answers", got)
			}
			if got, want := cached(t, f), macOf(t, left); got != want {
				t.Errorf("the neighbour's table has %s, want %s", got, want)
			}
			l.release(t)
		})
	}
}

// TestReleaseDuringAnnouncements must end them at once.
func TestReleaseDuringAnnouncements(t *testing.T) {
	f := families[0]
	network(t, f)
	l := holder{floating.New(f.floating, f.left.Addr(), slog.New(slog.DiscardHandler)), left}
	l.hold(t)
	began := time.Now()
	l.release(t)
	if took := time.Since(began); took > 250*time.Millisecond || l.held(t) {
		t.Errorf("release took %s, held afterwards: %v", took, l.held(t))
	}
}

func TestNoInterface(t *testing.T) {
	netnstest.New(t, hub)
	a := floating.New(families[0].floating, families[0].left.Addr(), slog.New(slog.DiscardHandler))
	for name, f := range map[string]func() error{
		"Hold":    func() error { return a.Hold(t.Context()) },
		"Release": func() error { return a.Release(t.Context()) },
		"Look":    func() error { _, _, err := a.Look(); return err },
		"Probe":   func() error { _, _, err := a.Probe(t.Context()); return err },
	} {
		if err := netns.Do(hub, f); !errors.Is(err, link.ErrNotFound) {
			t.Errorf("%s without the server's interface: %v, want %v", name, err, link.ErrNotFound)
		}
	}
}

func macOf(t *testing.T, name string) (mac string) {
	t.Helper()
	netnstest.In(t, name, func() error {
		nic, err := net.InterfaceByName("eth0")
		if err == nil {
			mac = nic.HardwareAddr.String()
		}
		return err
	})
	return mac
}

// cached is the MAC that the hub's neighbour table has for the floating address.
func cached(t *testing.T, f family) string {
	t.Helper()
	out, err := exec.Command("ip", "-n", hub, "neighbor", "show", f.floating.String()).CombinedOutput()
	if err != nil {
		t.Fatalf("show neighbours: %v: %s", err, out)
	}
	_, rest, _ := strings.Cut(string(out), "lladdr ")
	mac, _, _ := strings.Cut(rest, " ")
	return mac
}
