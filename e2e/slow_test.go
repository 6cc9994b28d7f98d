package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// crowd are connections of visitors that are slow on purpose.
type crowd struct {
	config *tls.Config
	all    []net.Conn
}

// newCrowd raises this process's limit of open files for n connections.
func newCrowd(t *testing.T, n uint64) *crowd {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if l.Max < n+1000 {
		t.Skipf("SKIP: needs %d open files, and may have %d: raise `ulimit -Hn`", n+1000, l.Max)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	c := &crowd{config: visitor(t, ring.Floating()).Transport.(*http.Transport).TLSClientConfig.Clone()}
	c.config.ServerName, c.config.ClientSessionCache = Domain, tls.NewLRUClientSessionCache(1)
	c.config.CurvePreferences = []tls.CurveID{tls.X25519}
	t.Cleanup(c.close)
	return c
}

// join opens n connections and says something on each.
func (c *crowd) join(t *testing.T, n int, say string) []net.Conn {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, 32)
	begun := len(c.all)
	for range n {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			d := &net.Dialer{Timeout: time.Minute}
			conn, err := tls.DialWithDialer(d, "tcp", net.JoinHostPort(ring.Floating(), "443"), c.config)
			if err == nil {
				_, err = io.WriteString(conn, say)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("join the crowd: %v", err)
				return
			}
			c.all = append(c.all, conn)
		})
	}
	wg.Wait()
	return c.all[begun:]
}

// drip sends a byte on each connection every four seconds, until ctx ends.
func drip(ctx context.Context, all []net.Conn) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for turn := 0; ; turn++ {
		for i := turn % 4; i < len(all); i += 4 {
			_, _ = io.WriteString(all[i], "x") // it may have been ended
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *crowd) close() {
	for _, conn := range c.all {
		_ = conn.Close()
	}
}

// statuses says how many were told what, or just closed, or are still open after limit.
func statuses(all []net.Conn, limit time.Duration) map[string]int {
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[string]int{}
	deadline := time.Now().Add(limit)
	for _, c := range all {
		wg.Go(func() {
			_ = c.SetReadDeadline(deadline)
			what := "closed"
			res, err := http.ReadResponse(bufio.NewReaderSize(c, 256), nil)
			switch {
			case err == nil:
				what = strconv.Itoa(res.StatusCode)
			case os.IsTimeout(err):
				what = "open"
			}
			_ = c.Close()
			mu.Lock()
			defer mu.Unlock()
			got[what]++
		})
	}
	wg.Wait()
	return got
}

// resident is a process's memory in bytes.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// metric is a value that the balancer of a server publishes.
func metric(t *testing.T, server, name string) float64 {
	t.Helper()
	socket := filepath.Join(ring.Dir(server, "run"), "metrics", "balancer", "balancer.sock")
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}, DisableKeepAlives: true}}
	res, err := client.Get("http://balancer/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("the balancer of %s has no metric %s", server, name)
	return 0
}

// Ten thousand visitors whose requests never get done, and a thousand whose
// bodies hardly come, hinder nobody; they are ended, and their memory is bounded.
func (c chaos) slowClients(t *testing.T) {
	const heads, bodies, headTime = 10_000, 1000, 20 * time.Second
	c.apply(t, fmt.Sprintf("  limits:\n    head_time: %s\n    connections: %d\n", headTime, heads+bodies+1000))
	holder, _ := holderAndOther(t)
	pid := processes(t, holder, "trivet worker balancer")[0]
	slow := newCrowd(t, heads+bodies)
	before := resident(t, pid)
	s := underLoad(t, ring.Floating(), func(*steady) {
		begun := time.Now()
		slow.join(t, bodies, "POST / HTTP/1.1\r\nHost: "+Domain+"\r\nContent-Length: 1000000\r\n\r\n")
		slow.join(t, heads, "GET / HTTP/1.1\r\nHost: "+Domain+"\r\nX: ")
		t.Logf("%d connections were made in %s", len(slow.all), time.Since(begun).Round(100*time.Millisecond))
	})
	s.unnoticed(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { drip(ctx, slow.all) })
	var most int64
	s = underLoad(t, ring.Floating(), func(s *steady) {
		s.more(t, 2*steadyRate)
		most = resident(t, pid)
		t.Logf("the balancer has %d connections and %d MB of memory, after %d MB: %.1f kB for each slow client",
			balancerOf(t, holder).Connections, most>>20, before>>20, float64(most-before)/1024/float64(len(slow.all)))
		got := statuses(slow.all, headTime+20*time.Second)
		t.Logf("what the slow clients were told: %v", got)
		if got["open"] > 0 {
			t.Errorf("%d slow clients were not ended", got["open"])
		}
	})
	stop()
	wg.Wait()
	f := s.unnoticed(t)
	if slower := s.slower(500 * time.Millisecond); slower > f.answered/100 {
		t.Errorf("%d of %d answers took longer than 500 ms beside slow clients, want at most one in a hundred", slower, f.answered)
	}
	if perClient := (most - before) / (heads + bodies); perClient > 64<<10 {
		t.Errorf("the balancer needs %d bytes for each slow client, want at most 64 kB", perClient)
	}
}

// One connection too many is refused and counted; those that are open go on.
func (c chaos) tooManyConnections(t *testing.T) {
	const limit = 200
	c.apply(t, fmt.Sprintf("  limits:\n    connections: %d\n", limit))
	holder, _ := holderAndOther(t)
	first := visitor(t, ring.Floating())
	if code, _ := get(t, first, "/"); code != http.StatusOK {
		t.Fatalf("the first visitor gets %d", code)
	}
	had := metric(t, holder, "trivet_connections_refused_total")
	many := newCrowd(t, limit)
	many.join(t, limit-1, "GET / HTTP/1.1\r\nHost: "+Domain+"\r\n")
	newest := visitor(t, ring.Floating())
	if res, err := newest.Get("https://" + Domain + "/"); err == nil {
		_ = res.Body.Close()
		t.Errorf("one more than %d connections gets %s, want that it is refused", limit, res.Status)
	}
	if code, _ := get(t, first, "/"); code != http.StatusOK {
		t.Errorf("the first visitor gets %d", code)
	}
	refused := metric(t, holder, "trivet_connections_refused_total") - had
	t.Logf("%.0f connections were refused", refused)
	if refused == 0 {
		t.Error("nothing was counted as refused")
	}
	c.apply(t, "")
	if code, _ := get(t, newest, "/"); code != http.StatusOK {
		t.Errorf("with another limit, the newest visitor gets %d", code)
	}
}
