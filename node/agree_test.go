package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/certificate"
	"trivet/cluster"
	"trivet/internal/atomicfile"
	"trivet/internal/metric"
	"trivet/internal/part"
)

// eventually waits for ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("no %s after 30 s", what)
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
}

// agreeing are three nodes of one cluster on 127.0.0.1 to 3, of which nothing
// runs but what they agree by.
func agreeing(t *testing.T) []*Node {
	t.Helper()
	root, err := certificate.NewAuthority("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	var members []cluster.Member
	for i := range 3 {
		members = append(members, cluster.Member{Name: fmt.Sprintf("s%d", i+1), Address: fmt.Sprintf("127.0.0.%d", i+1)})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	var nodes []*Node
	for _, m := range members {
		n := &Node{name: m.Name, log: slog.New(slog.DiscardHandler), metrics: metric.NewRegistry(), wake: make(chan struct{}, 1)}
		n.agreed = agreed{Declared: Declared{Revision: 1, Site: foobar()}, Secrets: map[string]string{}, Live: map[string]live{}}
		n.cluster = cluster.New(identified(t, root, cluster.Config{Name: m.Name, Members: members, Port: port, Token: "test"}))
		wg.Go(func() { _ = n.cluster.Run(ctx) })
		wg.Go(func() { n.cluster.Watch(ctx, statePrefix, n.see) })
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		eventually(t, "quorum at "+n.name, n.cluster.Quorum)
	}
	return nodes
}

// see is watched without the disk, and composes at once; all servers are alive and well.
func (n *Node) see(content map[string]cluster.Value) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, err := parse(n.agreed, content)
	if err != nil {
		panic(err)
	}
	for _, s := range a.Declared.Site.Servers {
		a.Live[s.Name] = live{}
	}
	n.agreed, n.composed = a, compose(local{server: n.name, quorum: true}, a)
}

// identified gives c a folder and an identity in it.
func identified(t *testing.T, root *certificate.Authority, c cluster.Config) cluster.Config {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	c.Dir, c.Cert, c.Key, c.CA = file("data"), file("cert"), file("key"), file("ca")
	i := slices.IndexFunc(c.Members, func(m cluster.Member) bool { return m.Name == c.Name })
	// On loopback, all connections leave from 127.0.0.1.
	addresses := []netip.Addr{netip.MustParseAddr(c.Members[i].Address), netip.MustParseAddr("127.0.0.1")}
	pair, err := root.Issue(certificate.Request{Site: "foobar", Server: c.Name, Part: part.Node, Addresses: slices.Compact(addresses), Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ca, _ := root.PEM()
	for name, data := range map[string][]byte{c.Cert: pair.Certificate, c.Key: pair.Key, c.CA: ca} {
		if err := atomicfile.Write(name, data, 0o600, -1, -1); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (n *Node) drainedSeen() []string {
	var names []string
	for _, m := range n.state().Members {
		if m.Drained {
			names = append(names, m.Name)
		}
	}
	return names
}

// Three real members agree: what one node changes all see, and none of the
// changes that only fit one at a time gets through twice.
func TestAgreeing(t *testing.T) {
	nodes := agreeing(t)
	for _, n := range nodes {
		eventually(t, "state at "+n.name, func() bool { return len(n.state().Members) == 3 })
	}
	t.Run("drain", func(t *testing.T) { testDrainAgreed(t, nodes) })
	t.Run("drain all at once", func(t *testing.T) { testDrainAtOnce(t, nodes) })
	t.Run("found", func(t *testing.T) { testFound(t, nodes) })
	t.Run("rotate", func(t *testing.T) { testRotateAgreed(t, nodes) })
	t.Run("password", func(t *testing.T) { testRotation(t, nodes) })
}

func testDrainAgreed(t *testing.T, nodes []*Node) {
	d, err := nodes[0].drain(t.Context(), "s2", true)
	if diff := cmp.Diff(Drains{Drained: []string{"s2"}, Changed: true}, d); diff != "" || err != nil {
		t.Errorf("drain: %v (-want +got):\n%s", err, diff)
	}
	for _, n := range nodes {
		eventually(t, "drain seen at "+n.name, func() bool { return slices.Equal(n.drainedSeen(), []string{"s2"}) })
	}
	if d, err = nodes[2].drain(t.Context(), "s2", true); d.Changed || err != nil {
		t.Errorf("drain again = %+v, %v, want nothing changed", d, err)
	}
	if _, err = nodes[0].drain(t.Context(), "s9", true); err == nil || err.Error() != `drain s9: the site has no server "s9"` {
		t.Errorf("drain of an unknown server = %v", err)
	}
	if d, err = nodes[1].drain(t.Context(), "s2", false); len(d.Drained) != 0 || !d.Changed || err != nil {
		t.Errorf("undrain = %+v, %v, want none drained", d, err)
	}
	for _, n := range nodes {
		eventually(t, "undrain seen at "+n.name, func() bool { return len(n.drainedSeen()) == 0 })
	}
}

// However the three race, one server is left.
func testDrainAtOnce(t *testing.T, nodes []*Node) {
	errs := make([]error, 3)
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { _, errs[i] = n.drain(t.Context(), fmt.Sprintf("s%d", i+1), true) })
	}
	wg.Wait()
	var refused []string
	for _, err := range errs {
		if err != nil {
			refused = append(refused, err.Error())
		}
	}
	if len(refused) != 1 || !strings.Contains(refused[0], "no other server would be left to answer visitors") {
		t.Errorf("refused = %q, want one of three", refused)
	}
	for _, m := range foobar().Servers {
		if _, err := nodes[0].drain(t.Context(), m.Name, false); err != nil {
			t.Fatal(err)
		}
	}
}

// Whoever founds the cluster first, the secrets are the same for all.
func testFound(t *testing.T, nodes []*Node) {
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			if err := n.foundOnce(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	names := []string{part.SecretConsoleKey, part.SecretAppDatabase, part.SecretReader, part.SecretSticky, part.SecretTicketKeys}
	for _, name := range names {
		for _, n := range nodes {
			eventually(t, name+" at "+n.name, func() bool {
				s := n.state().Secrets[name]
				return s != "" && s == nodes[0].state().Secrets[name]
			})
		}
	}
}

// Each of three nodes finds a key due, and one new key comes of it.
func testRotateAgreed(t *testing.T, nodes []*Node) {
	first := nodes[0].state().Secrets[part.SecretTicketKeys]
	rotate := func(now time.Time) {
		var wg sync.WaitGroup
		for _, n := range nodes {
			wg.Go(func() {
				if err := n.rotateDue(t.Context(), now); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	rotate(time.Now().Add(ticketLife - time.Minute))
	if got := tickets(t, nodes[0]); len(got) != 1 {
		t.Errorf("%d keys before one is due, want 1", len(got))
	}
	for round := 1; round <= 4; round++ {
		rotate(time.Now().Add(time.Duration(round) * (ticketLife + time.Minute)))
		want := min(round+1, ticketKeep)
		got := tickets(t, nodes[0])
		if len(got) != want {
			t.Errorf("round %d: %d keys, want %d", round, len(got), want)
		}
		for _, n := range nodes {
			eventually(t, "new keys at "+n.name, func() bool { return n.state().Secrets[part.SecretTicketKeys] == ticketSecret(got) })
		}
		if has := strings.Contains(ticketSecret(got), first); has != (round < ticketKeep) {
			t.Errorf("round %d: the first key is there = %v", round, has)
		}
	}
}

// tickets are the keys that the cluster agrees on.
func tickets(t *testing.T, n *Node) []ticketKey {
	t.Helper()
	v, err := n.cluster.Get(t.Context(), keyTickets)
	if err != nil {
		t.Fatal(err)
	}
	var keys []ticketKey
	if err := json.Unmarshal(v.Data, &keys); err != nil {
		t.Fatal(err)
	}
	return keys
}

// What is kept on the disk outlives a start without the cluster.
func TestSaveKeepsDrainsAndTickets(t *testing.T) {
	content := full(t)
	content[keyDrained] = encoded(t, []string{"s3"})
	content[keyTickets] = encoded(t, renew(nil, time.Now(), freshTicket()))
	a := mustParse(t, agreed{}, content)
	path := filepath.Join(t.TempDir(), "state.json")
	if err := a.save(path); err != nil {
		t.Fatal(err)
	}
	got, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"s3"}, got.Drained); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(a.Tickets, got.Tickets); diff != "" || len(got.Tickets) != 1 {
		t.Errorf("tickets (-want +got):\n%s", diff)
	}
	data, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(data), "null") {
		t.Errorf("kept %s, %v", data, err)
	}
	// An undrain is a word of the cluster too.
	a = mustParse(t, got, map[string]cluster.Value{keyDrained: encoded(t, []string{})})
	if len(a.Drained) != 0 {
		t.Errorf("drained = %v after an undrain", a.Drained)
	}
}

// The status tells what is wrong with the cluster's member here.
func TestStatusCluster(t *testing.T) {
	n := agreeing(t)[0]
	n.drivers, n.releases = map[string]*driver{}, &releases{}
	for _, name := range append(slices.Clone(part.Names), part.Router) {
		n.drivers[name] = newDriver(name, nil, n.log, nil)
	}
	if got := n.Status(t.Context()).Cluster; got != "" {
		t.Errorf("a member that is well: got %q, want nothing", got)
	}
	n.cluster = cluster.New(cluster.Config{})
	if got, want := n.Status(t.Context()).Cluster, "not running"; !strings.Contains(got, want) {
		t.Errorf("a member that does not run: got %q, want %q in it", got, want)
	}
}
