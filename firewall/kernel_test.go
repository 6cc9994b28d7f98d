package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/link"
	"trivet/internal/metric"
	"trivet/internal/netns"
	"trivet/internal/netns/netnstest"
	"trivet/internal/part"
)

// The servers' namespaces by name, and outside: the visitor's, which has the bridge.
var servers = map[string]string{"s1": "tfw-1", "s2": "tfw-2", "s3": "tfw-3"}

const (
	outside  = "tfw-0"
	operator = "10.83.0.1"
	visitor  = "10.83.0.200"
)

// namespace makes a network namespace for the test's time.
func namespace(t *testing.T, name string) {
	t.Helper()
	netnstest.New(t, name)
	netnstest.In(t, name, func() error { return link.SetUp("lo") })
}

// network makes the visitor's and the three servers' namespaces, cabled to one bridge.
func network(t *testing.T, s part.State) {
	t.Helper()
	namespace(t, outside)
	netnstest.In(t, outside, func() error {
		return errors.Join(
			link.CreateBridge("br", netip.MustParsePrefix(operator+"/24")),
			link.AddAddress("br", netip.MustParsePrefix(visitor+"/24")))
	})
	for _, server := range s.Site.Servers {
		cable(t, server.Name, netip.MustParsePrefix(server.Address+"/24"))
	}
}

func cable(t *testing.T, server string, address netip.Prefix) {
	t.Helper()
	namespace(t, servers[server])
	file, err := os.Open(netns.Path(servers[server]))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	netnstest.In(t, outside, func() error {
		return errors.Join(link.CreateVeth(server, "eth0", file), link.SetMaster(server, "br"), link.SetUp(server))
	})
	netnstest.In(t, servers[server], func() error {
		return errors.Join(link.AddAddress("eth0", address), link.SetUp("eth0"),
			link.AddDefaultRoute(netip.MustParseAddr(operator)))
	})
}

// applied returns a firewall that holds s in the namespace.
func applied(t *testing.T, name string, s part.State) *Firewall {
	t.Helper()
	f := New(Config{Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry()})
	netnstest.In(t, name, func() error { return f.Apply(t.Context(), s) })
	t.Cleanup(func() { _ = f.kernel.close() })
	return f
}

func nft(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", name, "nft"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %q: %v: %s", args, err, out)
	}
	return string(out)
}

// TestKernelHoldsText compares the policy's text with what nft(8) reads from the kernel.
func TestKernelHoldsText(t *testing.T) {
	namespace(t, servers["s1"])
	f := New(Config{Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry()})
	for _, s := range []part.State{lab(), rich()} {
		netnstest.In(t, servers["s1"], func() error { return f.Apply(t.Context(), s) })
		want := compiled(t, s).String()
		want = withoutStrangers(want)
		got := modern(nft(t, servers["s1"], "--guid", "list", "table", "inet", "trivet"))
		if diff := cmp.Diff(fields(want), fields(got)); diff != "" {
			t.Errorf("nft list (-want +got):\n%s", diff)
		}
		if err := f.Check(t.Context()); err != nil {
			t.Errorf("Check: %v", err)
		}
	}
}

// withoutStrangers is a policy's text as a machine holds it that lacks some of its users.
func withoutStrangers(text string) string {
	for _, user := range []string{part.UserBalancer, part.UserRouter, part.UserMonitor, part.UserMySQL} {
		if _, ok := userID(user); ok {
			continue
		}
		condition := fmt.Sprintf("meta skuid %q ", user)
		text = regexp.MustCompile(`(?m)^\s*`+condition+`(tcp.*|.*comment "peer")\n`).ReplaceAllString(text, "")
		text = strings.ReplaceAll(text, condition, "")
	}
	return text
}

func TestRunning(t *testing.T) {
	namespace(t, servers["s1"])
	f := applied(t, servers["s1"], lab())
	want := withoutStrangers(compiled(t, lab()).String())
	if got := running(t, f); got != want {
		t.Errorf("Running differs from the policy:\n%s", cmp.Diff(want, got))
	}
	nft(t, servers["s1"], "insert rule inet trivet input tcp dport 3306 accept")
	got := without(fields(running(t, f)), fields(want))
	if len(got) != 1 || !regexp.MustCompile(`^# handle \d+: not of the policy$`).MatchString(got[0]) {
		t.Errorf("Running after a rule was added by hand has further lines %q, want its handle", got)
	}
}

func running(t *testing.T, f *Firewall) string {
	t.Helper()
	text, err := f.Running(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// modern brings the output of nft 1.0 into the words of nft 1.1, without the counts.
func modern(text string) string {
	text = regexp.MustCompile(`packets \d+ bytes \d+`).ReplaceAllString(text, "")
	return regexp.MustCompile(`tcp flags (!= )?(\w+) / (\S+)`).ReplaceAllStringFunc(text, func(m string) string {
		op, rest := "==", strings.TrimPrefix(m, "tcp flags ")
		if after, ok := strings.CutPrefix(rest, "!= "); ok {
			op, rest = "!=", after
		}
		value, mask, _ := strings.Cut(rest, " / ")
		return fmt.Sprintf("tcp flags & (%s) %s %s", strings.ReplaceAll(mask, ",", " | "), op, value)
	})
}

// fields is text line by line without its indentation and empty lines.
func fields(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			out = append(out, line)
		}
	}
	return out
}

func TestApplyIsIdempotent(t *testing.T) {
	namespace(t, servers["s1"])
	f := applied(t, servers["s1"], lab())
	before, err := f.kernel.generation()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(t.Context(), lab()); err != nil {
		t.Fatal(err)
	}
	second := applied(t, servers["s1"], lab()) // a new node adopts what is there
	if after, err := second.kernel.generation(); after != before || err != nil {
		t.Errorf("generation went from %d to %d (%v), want no change", before, after, err)
	}
	bad := lab()
	bad.Server = "s9"
	if err := f.Apply(t.Context(), bad); err == nil {
		t.Error("Apply of a bad state: no error")
	}
	if err := f.Check(t.Context()); err != nil {
		t.Errorf("Check after a refused Apply: %v", err)
	}
}

func TestCheckBeforeApply(t *testing.T) {
	f := New(Config{Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry()})
	if err := f.Check(t.Context()); err == nil || err.Error() != "no state yet" {
		t.Errorf("Check: %v, want: no state yet", err)
	}
}

// TestTamper changes the table by hand in many ways: Check must tell each, and keep must repair it.
func TestTamper(t *testing.T) {
	namespace(t, servers["s1"])
	f := applied(t, servers["s1"], lab())
	for _, tc := range []struct{ command, want string }{
		{"flush ruleset", "the table is missing"},
		{"delete table inet trivet", "the table is missing"},
		{"flush chain inet trivet input", "chain input lacks the rule"},
		{"insert rule inet trivet input tcp dport 3306 accept", "chain input lacks the rule"},
		{"add rule inet trivet output accept", "chain output has 1 more rules"},
		{"chain inet trivet input { policy accept ; }", "chain input is declared differently"},
		{"add chain inet trivet other", "a chain was added"},
		{"add table inet trivet { flags dormant ; }", "the table is switched off"},
		{"flush chain inet trivet input ; delete chain inet trivet input", "chain input is missing"},
		{
			"flush chain inet trivet input ; delete chain inet trivet input ; add chain inet trivet input { type filter hook output priority 5 ; }",
			"chain input is declared differently",
		},
	} {
		nft(t, servers["s1"], tc.command)
		if err := f.Check(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Check after %q: %v, want %q", tc.command, err, tc.want)
		}
		if err := f.keep(); err != nil {
			t.Errorf("keep after %q: %v", tc.command, err)
		}
		if err := f.Check(t.Context()); err != nil {
			t.Errorf("Check after %q and repair: %v", tc.command, err)
		}
	}
}

// TestRunRepairs flushes the rules by hand while Run watches.
func TestRunRepairs(t *testing.T) {
	namespace(t, servers["s1"])
	f := applied(t, servers["s1"], lab())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	nft(t, servers["s1"], "flush ruleset")
	for deadline := time.Now().Add(2 * interval); f.Check(ctx) != nil; {
		if time.Now().After(deadline) {
			t.Fatalf("not repaired: %v", f.Check(ctx))
		}
		wait(t, 50*time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if got := nft(t, servers["s1"], "list", "table", "inet", "trivet"); !strings.Contains(got, "policy drop") {
		t.Errorf("after Run the kernel holds %q, want the rules still in force", got)
	}
	if err := f.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := nft(t, servers["s1"], "list", "ruleset"); got != "" {
		t.Errorf("after Remove the kernel holds %q", got)
	}
}

// wait spaces out the tries of a loop that has a deadline.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// TestManyDescriptors opens more descriptors than the netlink library can bear.
func TestManyDescriptors(t *testing.T) {
	namespace(t, servers["s1"])
	f := applied(t, servers["s1"], lab())
	crowd(t, 1200)
	if err := f.Apply(t.Context(), rich()); err != nil {
		t.Errorf("Apply with 1,200 open descriptors: %v", err)
	}
	late := New(Config{Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry()})
	err := netns.Do(servers["s1"], func() error { return late.Apply(t.Context(), lab()) })
	if err == nil || !strings.Contains(err.Error(), "too many were open before") {
		t.Errorf("first Apply with 1,200 open descriptors: %v, want a clear word", err)
	}
}

func crowd(t *testing.T, n int) {
	t.Helper()
	for range n {
		file, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = file.Close() })
	}
}

// dial tries a TCP connection from inside a namespace; see dialFor.
func dial(ctx context.Context, name, local, remote string) string {
	return dialFor(ctx, 0, name, local, remote)
}

// dialFor tries a TCP connection of that user from an address inside a
// namespace and says what became of it: open, refused (it went through, nobody
// listens) or dropped. A socket is its maker's, whom the kernel knows by the
// thread's file system user (credentials(7)).
func dialFor(ctx context.Context, user uint32, name, local, remote string) string {
	d := net.Dialer{Timeout: 700 * time.Millisecond}
	if local != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(local)}
	}
	var c net.Conn
	err := netns.Do(name, func() (err error) { // on a thread of its own
		if err := syscall.Setfsuid(int(user)); err != nil {
			return err
		}
		c, err = d.DialContext(ctx, "tcp", remote)
		return errors.Join(err, syscall.Setfsuid(0))
	})
	var timeout net.Error
	switch {
	case err == nil:
		_ = c.Close()
		return "open"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "dropped"
	case strings.Contains(err.Error(), "connection refused"):
		return "refused"
	}
	return err.Error()
}
