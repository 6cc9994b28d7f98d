package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"trivet/internal/netns"
)

// Ports that the design opens; all others must be dropped. A port that is let
// through but has no listener refuses, so that openness shows either way.
var (
	forVisitors = []int{80, 443}
	forOperator = []int{22, 9443}
	forPeers    = []int{4444, 4567, 4568, 7080, 7090, 7306, 7380}
)

// scanned are all well-known ports and those around the design's own.
func scanned() []int {
	var ports []int
	for p := 1; p <= 1100; p++ {
		ports = append(ports, p)
	}
	for _, r := range [][2]int{{2370, 2390}, {3300, 3320}, {4430, 4580}, {7000, 7400}, {8000, 8100}, {9000, 9500}, {33060, 33061}} {
		for p := r[0]; p <= r[1]; p++ {
			ports = append(ports, p)
		}
	}
	return ports
}

// From each server to each other, and from the visitor, exactly the ports of the design are open.
func TestExactlyTheDesignsPortsAreOpen(t *testing.T) {
	ensureUp(t)
	for i := range 4 { // 0 is the visitor, who is the operator too
		from := "the visitor"
		want := slices.Concat(forVisitors, forOperator)
		if i > 0 {
			from, want = Servers[i-1], slices.Clone(forPeers) // outward, a server may not be a visitor
		}
		slices.Sort(want)
		for j := 1; j <= 3; j++ {
			if i == j {
				continue
			}
			got := scan(t, i, ring.Address(j))
			if !slices.Equal(got, want) {
				t.Errorf("from %s to s%d the ports %v are open, want %v", from, j, got, want)
			}
		}
	}
	if got, want := scan(t, 0, ring.Floating()), slices.Sorted(slices.Values(slices.Concat(forVisitors, forOperator))); !slices.Equal(got, want) {
		t.Errorf("from the visitor to the floating address the ports %v are open, want %v", got, want)
	}
}

// What a server sends out is dropped as well, but for what the design names.
func TestOutgoingIsDropped(t *testing.T) {
	ensureUp(t)
	l, err := net.Listen("tcp", ring.Prefix+".1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 3; i++ {
		if isOpen(t, i, ring.Prefix+".1", n) {
			t.Errorf("s%d reached port %d of the visitor's machine", i, n)
		}
	}
}

// scan dials many ports at once; a server's side is its namespace.
func scan(t *testing.T, from int, address string) []int {
	t.Helper()
	var mu sync.Mutex
	found := map[int]bool{}
	work := make(chan int)
	var wg sync.WaitGroup
	for range 900 {
		wg.Go(func() {
			for p := range work {
				if isOpen(t, from, address, p) {
					mu.Lock()
					found[p] = true
					mu.Unlock()
				}
			}
		})
	}
	for _, p := range scanned() {
		work <- p
	}
	close(work)
	wg.Wait()
	return slices.Sorted(maps.Keys(found))
}

// isOpen reports whether the firewalls let a connection through: it was taken, or refused by a reset.
func isOpen(t *testing.T, from int, address string, port int) bool {
	t.Helper()
	dial := func() error {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(address, strconv.Itoa(port)), 700*time.Millisecond)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	var err error
	if from == 0 {
		err = dial()
	} else {
		err = inside(Servers[from-1], dial)
	}
	var timeout net.Error
	switch {
	case err == nil, errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return true
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, syscall.EPERM):
		return false
	}
	t.Errorf("dial %s:%d from %d: %v", address, port, from, err)
	return false
}

func inside(server string, f func() error) error {
	var inner error
	if err := netns.Do(ring.Namespace(server), func() error { inner = f(); return nil }); err != nil {
		return fmt.Errorf("enter %s: %w", server, err)
	}
	return inner
}

// mustContain reports a text that lacks a word.
func mustContain(t *testing.T, text, word string) {
	t.Helper()
	if !strings.Contains(text, word) {
		t.Errorf("got %q, want it to say %q", text, word)
	}
}

// A port that another program has taken is named in the status, costs no request, and is taken back when it is free.
func TestPortInUse(t *testing.T) {
	ensureUp(t)
	address := net.JoinHostPort(ring.Address(1), "7080")
	kill(t, slices.Concat(processes(t, "s1", "trivet node"), processes(t, "s1", "trivet worker web"))...)
	var taken net.Listener
	eventually(t, 10*time.Second, "another program takes the port", func() bool {
		err := inside("s1", func() (err error) {
			taken, err = net.Listen("tcp", address)
			return err
		})
		return err == nil
	})
	defer func() { _ = taken.Close() }()
	eventually(t, 30*time.Second, "the status names the port that is in use", func() bool {
		out, err := ring.Run(t.Context(), "status")
		return err != nil && strings.Contains(out, "s1 web: ") && strings.Contains(out, "address already in use")
	})
	if code, _ := get(t, visitor(t, ring.Floating()), "/"); code != 200 {
		t.Errorf("the site answers %d", code)
	}
	_ = taken.Close()
	eventually(t, 60*time.Second, "all is healthy again", func() bool {
		s, err := ring.Status(t.Context())
		return err == nil && s.Healthy
	})
}
