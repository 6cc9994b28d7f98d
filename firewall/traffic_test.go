package firewall

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"trivet/internal/link"
	"trivet/internal/netns/netnstest"
	"trivet/internal/part"
)

// scanned are the ports of the design, those of services that must not be seen, and some others.
var scanned = []int{
	1, 21, 22, 25, 53, 79, 80, 81, 111, 443, 444, 2049, 2379, 2380, 3000, 3306, 4443, 4444, 4445, 4566, 4567, 4568, 4569,
	5432, 6379, 7079, 7080, 7081, 7090, 7305, 7306, 7380, 7381, 7390, 7391, 8080, 9090, 9443, 9444, 11211, 33060, 54321, 65535,
}

// betweenServers are the ports that a server lets its peers in by, with the
// users who may go out to them.
var betweenServers = map[string][]int{
	"root": {7090, 7380}, part.UserMonitor: {7090}, part.UserBalancer: {7080}, part.UserRouter: {7306},
	part.UserMySQL: {4444, 4567, 4568, 7391}, part.UserWeb: nil, part.UserApp: nil, "nobody": nil,
}

// TestScan dials every scanned port over every path and compares with the
// design: refused means that the firewalls let it through, dropped that not.
func TestScan(t *testing.T) {
	s := lab()
	network(t, s)
	for _, server := range s.Site.Servers {
		state := s
		state.Server = server.Name
		applied(t, servers[server.Name], state)
	}
	type path struct{ from, user, local, to string }
	want, got := map[path][]int{}, map[path][]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	limit := make(chan struct{}, 500)
	scan := func(p path, name string, through []int) {
		id, ok := userID(p.user)
		if !ok {
			t.Logf("not tried, for there is no such user: %s", p.user)
			return
		}
		if len(through) > 0 {
			want[p] = through
		}
		for _, port := range scanned {
			wg.Go(func() {
				limit <- struct{}{}
				defer func() { <-limit }()
				result := dialFor(t.Context(), id, name, p.local, fmt.Sprintf("%s:%d", p.to, port))
				mu.Lock()
				defer mu.Unlock()
				switch result {
				case "refused":
					got[p] = append(got[p], port)
				case "dropped":
				default:
					t.Errorf("%s → %s:%d: %s, want refused or dropped", p.from, p.to, port, result)
				}
			})
		}
	}
	for _, server := range s.Site.Servers {
		scan(path{"operator", "root", operator, server.Address}, outside, []int{22, 80, 443, 9443})
		scan(path{"visitor", "root", visitor, server.Address}, outside, []int{80, 443})
		scan(path{server.Name, "root", "", operator}, servers[server.Name], []int{53})
		for _, other := range s.Site.Servers {
			if other == server { // over lo
				scan(path{server.Name, "root", "", other.Address}, servers[server.Name], slices.Clone(scanned))
				continue
			}
			for user, through := range betweenServers {
				scan(path{server.Name, user, "", other.Address}, servers[server.Name], through)
			}
		}
	}
	wg.Wait()
	for _, ports := range got {
		slices.Sort(ports)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the firewalls let through (-want +got):\n%s", diff)
	}
}

// TestEgress opens one network outside, and the webhook of an alert.
func TestEgress(t *testing.T) {
	s := lab()
	network(t, s)
	s.Site.Firewall.Egress = append(s.Site.Firewall.Egress, rich().Site.Firewall.Egress[0])
	s.Site.Firewall.Egress[0].To = operator + "/31"
	s.Site.Firewall.Egress[0].Ports = []int{8025}
	f := applied(t, servers["s1"], s)
	before, _ := dropped(t, f)
	for _, tc := range []struct{ remote, want string }{
		{operator + ":8025", "refused"}, {operator + ":8026", "dropped"}, {visitor + ":8025", "dropped"},
	} {
		if got := dial(t.Context(), servers["s1"], "", tc.remote); got != tc.want {
			t.Errorf("dial %s: %s, want %s", tc.remote, got, tc.want)
		}
	}
	if in, out := dropped(t, f); out < 2 || in != before {
		t.Errorf("dropped %d in, %d out, want %d and at least 2", in, out, before)
	}
}

// TestWebhookUser lets one user out and nobody else, not even root. The user
// is one that every machine has.
func TestWebhookUser(t *testing.T) {
	s := lab()
	network(t, s)
	f := applied(t, servers["s1"], s)
	const user, address = "nobody", operator + ":8025"
	h, err := readService("http://" + address + "/")
	if err != nil {
		t.Fatal(err)
	}
	p := compiled(t, s)
	r := h.outward("alert", part.UserMonitor)
	r.user = user
	p.chains[1].rules = slices.Insert(p.chains[1].rules, 0, r)
	if err := f.write(p); err != nil {
		t.Fatal(err)
	}
	if got := dial(t.Context(), servers["s1"], "", address); got != "dropped" {
		t.Errorf("dial by root: %s, want dropped", got)
	}
	if got := dialAs(t, user, address); !strings.Contains(got, "refused") {
		t.Errorf("dial by %s: %q, want refused", user, got)
	}
}

// dialAs connects from server s1 by a process of that user and returns its words.
func dialAs(t *testing.T, user, address string) string {
	t.Helper()
	id, ok := userID(user)
	if !ok {
		t.Skipf("needs the user %s", user)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var out []byte
	netnstest.In(t, servers["s1"], func() error { // the child inherits this thread's namespace
		c := exec.CommandContext(ctx, "bash", "-c", "exec 3<>/dev/tcp/"+strings.Replace(address, ":", "/", 1))
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
		out, _ = c.CombinedOutput() // it fails either way; its words say how
		return nil
	})
	return string(out)
}

func dropped(t *testing.T, f *Firewall) (in, out uint64) {
	t.Helper()
	in, out, err := f.Dropped(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return in, out
}

// TestMidStream cuts a server's memory of its visitors' connections, as when
// the floating address moves: the visitor must be reset at once, the operator
// and a peer go on.
func TestMidStream(t *testing.T) {
	s := lab()
	network(t, s)
	f := applied(t, servers["s1"], s)
	visitors := connected(t, servers["s1"], "10.83.0.11:443", outside)
	operators := connected(t, servers["s1"], "10.83.0.11:22", outside)
	peers := connected(t, servers["s1"], "10.83.0.11:7080", servers["s2"])
	if err := f.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	flushConntrack(t, servers["s1"])
	if err := f.Apply(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := echo(visitors); err == nil || isTimeout(err) {
		t.Errorf("visitor's connection that the server forgot: %v, want a reset", err)
	}
	for name, c := range map[string]net.Conn{"operator": operators, "peer": peers} {
		if err := echo(c); err != nil {
			t.Errorf("%s's connection: %v, want it to go on", name, err)
		}
	}
}

// connected opens a connection to a server that echoes.
func connected(t *testing.T, to, address, from string) net.Conn {
	t.Helper()
	serve(t, to, address)
	c, err := netnstest.Dial(t.Context(), from, "tcp", netip.MustParseAddrPort(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := echo(c); err != nil {
		t.Fatalf("echo from %s: %v", address, err)
	}
	return c
}

// serve echoes single bytes until the test ends.
func serve(t *testing.T, name, address string) {
	t.Helper()
	l, err := netnstest.Listen(t.Context(), name, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { answer(c) })
		}
	})
}

func answer(c net.Conn) {
	defer func() { _ = c.Close() }()
	one := make([]byte, 1)
	for {
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := c.Read(one); err != nil {
			return
		}
		if _, err := c.Write(one); err != nil {
			return
		}
	}
}

func echo(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// flushConntrack makes the namespace forget its connections: IPCTNL_MSG_CT_DELETE
// without a tuple (linux/netfilter/nfnetlink_conntrack.h).
func flushConntrack(t *testing.T, name string) {
	t.Helper()
	netnstest.In(t, name, func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		message := make([]byte, 20)
		message[0] = 20                                        // length
		message[4], message[5] = 2, unix.NFNL_SUBSYS_CTNETLINK // type
		message[6] = unix.NLM_F_REQUEST | unix.NLM_F_ACK
		if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		reply := make([]byte, 256)
		n, _, err := unix.Recvfrom(fd, reply, 0)
		if err != nil {
			return err
		}
		if n < 20 || reply[16] != 0 {
			return fmt.Errorf("flush connections: errno %d", 256-int(reply[16]))
		}
		return nil
	})
}

// TestReplaceLosesNothing replaces the policy 200 times under a stream of new
// connections; a lost SYN would be sent again after one second.
func TestReplaceLosesNothing(t *testing.T) {
	s := lab()
	network(t, s)
	f := applied(t, servers["s1"], s)
	serve(t, servers["s1"], "10.83.0.11:443")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	results := make(chan stream, 4)
	for range cap(results) {
		wg.Go(func() { results <- connectAgain(ctx) })
	}
	other := lab()
	other.Site.Admin = []string{"10.83.0.2/32"}
	for i := range 200 {
		state := []part.State{other, s}[i%2]
		if err := f.Apply(ctx, state); err != nil {
			t.Error(err)
		}
	}
	cancel()
	wg.Wait()
	close(results)
	var all stream
	for r := range results {
		all.connections += r.connections
		all.errors = append(all.errors, r.errors...)
		all.slowest = max(all.slowest, r.slowest)
	}
	if all.connections < 200 || len(all.errors) > 0 || all.slowest >= 900*time.Millisecond {
		t.Errorf("%d connections, errors %v, slowest %s; want at least 200, none, under 900 ms",
			all.connections, all.errors, all.slowest)
	}
	t.Logf("%d connections, slowest %s", all.connections, all.slowest)
}

type stream struct {
	connections int
	errors      []error
	slowest     time.Duration
}

// connectAgain opens and uses one connection after the other until ctx ends.
func connectAgain(ctx context.Context) (s stream) {
	for ctx.Err() == nil {
		began := time.Now()
		c, err := netnstest.Dial(context.WithoutCancel(ctx), outside, "tcp", netip.MustParseAddrPort("10.83.0.11:443"))
		if err == nil {
			err = echo(c)
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
		if err != nil {
			s.errors = append(s.errors, err)
		}
		s.connections++
		s.slowest = max(s.slowest, time.Since(began))
	}
	return s
}

// TestIPv6 needs neighbour discovery to pass, and nothing else to.
func TestIPv6(t *testing.T) {
	s := lab()
	network(t, s)
	for name, address := range map[string]string{outside: "fd83::1/64", servers["s1"]: "fd83::11/64"} {
		ifname := map[string]string{outside: "br", servers["s1"]: "eth0"}[name]
		netnstest.In(t, name, func() error { return link.AddAddress(ifname, netip.MustParsePrefix(address)) })
	}
	applied(t, servers["s1"], s)
	// A new interface may miss the first question for its address; the next comes after a second.
	for deadline := time.Now().Add(6 * time.Second); ; {
		got := dial(t.Context(), outside, "", "[fd83::11]:443")
		if got == "refused" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("dial port 443 over IPv6: %s, want refused", got)
		}
	}
	if got := dial(t.Context(), outside, "", "[fd83::11]:7080"); got != "dropped" {
		t.Errorf("dial port 7080 over IPv6: %s, want dropped", got)
	}
}

// TestUDP asks by datagrams: a refusal comes back as an ICMP message.
func TestUDP(t *testing.T) {
	s := lab()
	network(t, s)
	applied(t, servers["s1"], s)
	for port, want := range map[uint16]string{443: "refused", 53: "dropped", 80: "dropped", 7080: "dropped"} {
		if got := datagram(t, netip.AddrPortFrom(netip.MustParseAddr("10.83.0.11"), port)); got != want {
			t.Errorf("udp port %d: %s, want %s", port, got, want)
		}
	}
}

func datagram(t *testing.T, to netip.AddrPort) string {
	t.Helper()
	c, err := netnstest.Dial(t.Context(), outside, "udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(400 * time.Millisecond))
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); isTimeout(err) {
		return "dropped"
	}
	return "refused"
}
