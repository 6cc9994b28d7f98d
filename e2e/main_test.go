package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"
)

// ring is the lab that the cases share. They run in the order in which they
// stand, each leaving the lab whole.
var ring = New("ring", "10.84.0")

// For who works on the ring while another one runs.
var (
	labName   = flag.String("lab", ring.Name, "name of the lab")
	labPrefix = flag.String("prefix", ring.Prefix, "first three numbers of its addresses")
	program   = flag.String("program", "", "trivet that is tried; empty: the repository's")
	keep      = flag.Bool("keep", false, "take a lab that is up, and leave it so")
)

func TestMain(m *testing.M) {
	flag.Parse()
	ring = New(*labName, *labPrefix)
	ring.Program = *program
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Println("SKIP: the lab ring needs root: it makes namespaces, bridges and firewall rules")
		return 0
	}
	if _, err := os.Stat(ring.Binary()); err != nil {
		fmt.Println("FAIL: there is no ./trivet: run `make build` first")
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if !*keep {
		_, _ = ring.Run(ctx, "down") // what an interrupted run left
	}
	code := m.Run()
	if code != 0 {
		diagnose()
	}
	if *keep {
		return code
	}
	if out, err := ring.Run(context.Background(), "down"); err != nil {
		fmt.Println(out, err)
		return 1
	}
	return code
}

// diagnose prints what an engineer would look at first.
func diagnose() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, args := range [][]string{{"status"}, {"logs", "node", "-n", "40"}, {"logs", "database", "-n", "30"}, {"logs", "app", "-n", "10"}, {"logs", "balancer", "-n", "40"}, {"logs", "web", "-n", "20"}} {
		out, err := ring.Run(ctx, args...)
		fmt.Println(out, err)
	}
}

// must runs a trivet command that has to succeed, and returns what it printed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := ring.Run(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// ensureUp makes the ring whole before a case; a case that failed does not take the next ones with it.
func ensureUp(t *testing.T) {
	t.Helper()
	if s, err := ring.Status(t.Context()); err == nil && s.Healthy {
		return
	}
	if out, err := ring.Up(t.Context()); err != nil {
		t.Fatalf("bring the ring up: %v\n%s", err, out)
	}
}

// eventually waits until ok says yes.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			out, err := ring.Run(t.Context(), "status")
			t.Fatalf("not within %s: %s\n%s%v", limit, what, out, err)
		case <-tick.C:
		}
	}
}

func visitor(t *testing.T, address string) *http.Client {
	t.Helper()
	c, err := ring.Visitor(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// get returns status and body of a page.
func get(t *testing.T, c *http.Client, path string) (int, string) {
	t.Helper()
	res, err := c.Get("https://" + Domain + path)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return res.StatusCode, string(body)
}

// post puts one message on the board; it has to be acknowledged.
func post(t *testing.T, c *http.Client, text string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"author": "ring", "text": text, "id": key(text)})
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Post("https://"+Domain+"/api/messages", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatalf("post %q: %v", text, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusCreated {
		out, _ := io.ReadAll(res.Body)
		t.Fatalf("post %q: %s %s", text, res.Status, out)
	}
}

// load runs a load at 200 requests a second while the case does its work.
func load(t *testing.T, during func(l *Load)) *Load {
	t.Helper()
	l := &Load{Client: visitor(t, ring.Floating()), Rate: 200, Tag: fmt.Sprintf("%s-%d", t.Name(), time.Now().UnixNano())}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	defer func() { stop(); <-done }()
	eventually(t, 10*time.Second, "the load's first posts", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.Acked) >= 10 })
	during(l)
	stop()
	<-done
	return l
}

// whole asserts that no GET failed and that every acknowledged post is there.
func (l *Load) whole(t *testing.T) {
	t.Helper()
	missing, err := l.Missing(visitor(t, ring.Floating()))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d GETs answered, %d failed; %d posts acknowledged, %d not; %d acknowledged and missing", l.Gets, len(l.Failed), len(l.Acked), len(l.Lost), len(missing))
	if len(l.Failed) > 0 {
		t.Errorf("%d GETs failed, the first: %v", len(l.Failed), l.Failed[:min(5, len(l.Failed))])
	}
	if len(missing) > 0 {
		t.Errorf("%d acknowledged posts are missing, the first: %s", len(missing), missing[0])
	}
	if l.Gets == 0 || len(l.Acked) == 0 {
		t.Error("the load did nothing")
	}
}

// forgive drops the failures of GETs that were sent before a moment.
func (l *Load) forgive(before time.Time) {
	n := len(l.Failed)
	l.Failed = slices.DeleteFunc(l.Failed, func(f Failure) bool { return f.Begun.Before(before) })
	if n > len(l.Failed) {
		fmt.Printf("forgiven: %d GETs that the server had taken\n", n-len(l.Failed))
	}
}

// processes finds the processes of a server; see Lab.Processes.
func processes(t *testing.T, server, word string) []int {
	t.Helper()
	pids, err := ring.Processes(server, word)
	if err != nil {
		t.Fatal(err)
	}
	return pids
}
