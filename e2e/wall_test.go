package e2e

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"trivet/internal/netns"
	"trivet/internal/part"
)

// Ports that the design opens; all others must be dropped. A port that is let
// through but has no listener refuses, so that openness shows either way.
var (
	forVisitors = []int{80, 443}
	forOperator = []int{22, 9443}
	forPeers    = map[string][]int{ // by the user whose processes may connect
		"root":            {7090, 7380},
		part.UserMonitor:  {7090},
		part.UserBalancer: {7080},
		part.UserRouter:   {7306},
		part.UserMySQL:    {4444, 4567, 4568},
		part.UserWeb:      nil,
		part.UserApp:      nil,
	}
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
	outside := slices.Sorted(slices.Values(slices.Concat(forVisitors, forOperator)))
	for j := 1; j <= 3; j++ { // the visitor is the operator too
		mustFind(t, 0, "root", ring.Address(j), scanned(), outside)
		for i := 1; i <= 3; i++ {
			if i != j { // outward, a server may not be a visitor
				mustFind(t, i, "root", ring.Address(j), scanned(), forPeers["root"])
			}
		}
	}
	mustFind(t, 0, "root", ring.Floating(), scanned(), outside)
}

// Each port between the servers can be reached by the users whose business it is, and by no others.
func TestPeersPortsAreTheirUsers(t *testing.T) {
	ensureUp(t)
	all := slices.Compact(slices.Concat(outsiders(), slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Values(forPeers))...)))))
	var wg sync.WaitGroup
	for i := 1; i <= 3; i++ {
		for user, want := range forPeers {
			wg.Go(func() { mustFind(t, i, user, ring.Address(i%3+1), all, want) })
		}
	}
	wg.Wait()
}

// outsiders are ports that no user of a server may reach on another.
func outsiders() []int { return []int{22, 53, 80, 443, 3306, 9443} }

// mustFind dials ports as that user and reports which are open against what should be.
func mustFind(t *testing.T, from int, user, address string, ports, want []int) {
	t.Helper()
	if got := scan(t, from, user, address, ports); !slices.Equal(got, want) {
		t.Errorf("from server %d (0: the visitor) as %s, of %s the ports %v are open, want %v", from, user, address, got, want)
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
	var wg sync.WaitGroup
	for i := 1; i <= 3; i++ {
		for name := range forPeers {
			wg.Go(func() { mustFind(t, i, name, ring.Prefix+".1", []int{n}, nil) })
		}
	}
	wg.Wait()
}

// scan dials many ports at once; a server's side is its namespace.
func scan(t *testing.T, from int, user, address string, ports []int) []int {
	t.Helper()
	id := userID(t, user)
	var mu sync.Mutex
	found := map[int]bool{}
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(900, len(ports)) {
		wg.Go(func() {
			for p := range work {
				if isOpen(t, from, id, address, p) {
					mu.Lock()
					found[p] = true
					mu.Unlock()
				}
			}
		})
	}
	for _, p := range ports {
		work <- p
	}
	close(work)
	wg.Wait()
	return slices.Sorted(maps.Keys(found))
}

// userID is the number of a user of this machine; -1, which is nobody's, if there is none.
func userID(t *testing.T, name string) int {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Error(err)
		return -1
	}
	id, err := strconv.Atoi(u.Uid)
	if err != nil {
		t.Error(err)
		return -1
	}
	return id
}

// isOpen reports whether the firewalls let a connection of that user through: it was taken, or refused by a reset.
func isOpen(t *testing.T, from, uid int, address string, port int) bool {
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
		// A socket is its maker's, whom the kernel knows by the thread's file system user (credentials(7)).
		err = inside(Servers[from-1], func() error {
			return errors.Join(syscall.Setfsuid(uid), dial(), syscall.Setfsuid(0))
		})
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
