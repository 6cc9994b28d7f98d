package access

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"trivet/proxy"
	"trivet/proxy/proxytest"
	"trivet/proxy/wire"
)

func sample() *proxy.Exchange {
	return &proxy.Exchange{
		Request: &wire.Request{
			Method: []byte("GET"), Host: []byte("www.foobar.com"), Path: []byte("/a\"b?c=\xff\x01"), Major: 2,
			Fields: []wire.Field{
				{Name: []byte("user-agent"), Value: []byte(`x"y\`), Kind: wire.UserAgent},
				{Name: []byte("referer"), Value: []byte("https://r.example/"), Kind: wire.Referer},
			},
		},
		ID: []byte("id"), Trace: []byte("trace"), Span: []byte("span"), Client: netip.MustParseAddr("203.0.113.7"),
		Begin: time.Date(2026, 11, 23, 14, 32, 5, 6_000_000, time.UTC), Status: 200, Sent: 12, Received: 3, Target: "s1", Retries: 1, Broken: true,
		Times: proxy.Timings{Queue: time.Millisecond, Connect: 2 * time.Millisecond, Send: time.Millisecond, Head: 2 * time.Millisecond},
	}
}

func TestJSON(t *testing.T) {
	x := sample()
	x.Times.Total = 1500 * time.Microsecond
	line := new(line).json(nil, x)
	var got map[string]any
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	want := map[string]any{
		"time": "2026-11-23T14:32:05.006Z", "id": "id", "trace": "trace", "span": "span", "client": "203.0.113.7", "method": "GET",
		"host": "www.foobar.com", "path": `/a"b`, "query": "c=\ufffd\x01", "protocol": "HTTP/2.0", "status": 200.0, "bytes": 12.0,
		"received": 3.0, "duration": 0.0015, "server": "s1", "queue": 0.001, "connect": 0.002, "head": 0.003, "retries": 1.0,
		"broken": true, "agent": `x"y\`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestCombined(t *testing.T) {
	got := string(new(line).combined(nil, sample()))
	want := `203.0.113.7 - - [23/Nov/2026:14:32:05 +0000] "GET /a\"b?c=\xff\x01 HTTP/2.0" 200 12 "https://r.example/" "x\"y\\"` + "\n"
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", time.Microsecond: "0.000001", 999: "0", 1500 * time.Microsecond: "0.0015", time.Second: "1",
		61*time.Second + 20*time.Millisecond: "61.02", 2*time.Second - time.Nanosecond: "1.999999",
	} {
		if got := string(appendSeconds(nil, d)); got != want {
			t.Errorf("%d ns: got %s, want %s", d, got, want)
		}
	}
}

// TestSecond: a line that begins in another second than the one before says so.
func TestSecond(t *testing.T) {
	var l line
	x := sample()
	for _, want := range []string{"05.006Z", "05.940Z", "06.000Z", "05.006Z"} {
		x.Begin = time.Date(2026, 11, 23, 14, 32, 0, 0, time.UTC)
		d, _ := time.ParseDuration(strings.TrimSuffix(want, "Z") + "s")
		x.Begin = x.Begin.Add(d)
		if got := string(l.json(nil, x)); !strings.HasPrefix(got, `{"time":"2026-11-23T14:32:`+want+`"`) {
			t.Errorf("got %s, want %s", got[:40], want)
		}
	}
}

// FuzzJSON: whatever a client sends, a line is one line of JSON that says it.
func FuzzJSON(f *testing.F) {
	f.Add([]byte("/a"), []byte("agent"))
	f.Add([]byte("\x00\x1f\"\\\u2028"), []byte("\xff\xfe\xed\xa0\x80"))
	f.Fuzz(func(t *testing.T, path, agent []byte) {
		x := sample()
		x.Request.Path, x.Request.Fields[0].Value = path, agent
		line := new(line).json(nil, x)
		var got struct{ Path, Query, Agent string }
		if err := json.Unmarshal(line, &got); err != nil || bytes.Count(line, []byte("\n")) != 1 {
			t.Fatalf("%q: %v", line, err)
		}
		if utf8.Valid(agent) && len(agent) < maxAgent && got.Agent != string(agent) {
			t.Errorf("agent: got %q, want %q", got.Agent, agent)
		}
	})
}

// stalled is a disk that takes nothing until it is let go.
type stalled struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	wait chan struct{}
}

func (s *stalled) Write(p []byte) (int, error) {
	<-s.wait
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

// TestStalledDisk: a log that cannot be written holds nobody up and is bounded.
func TestStalledDisk(t *testing.T) {
	disk := &stalled{wait: make(chan struct{})}
	l := New(disk)
	x := sample()
	for l.Dropped() == 0 {
		l.Write(JSON, x)
	}
	close(disk.wait)
	written := func() int {
		disk.mu.Lock()
		defer disk.mu.Unlock()
		return disk.buf.Len()
	}
	proxytest.Until(t, "all that was kept is written", func() bool { l.Flush(); return written() > most })
	if n := written(); n > 2*most {
		t.Errorf("written: got %d bytes, want at most %d", n, 2*most)
	}
	if lines := strings.Split(strings.TrimSpace(disk.buf.String()), "\n"); !json.Valid([]byte(lines[len(lines)-1])) {
		t.Errorf("last line is torn: %q", lines[len(lines)-1])
	}
}

func TestOff(t *testing.T) {
	var out bytes.Buffer
	l := New(&out)
	x := sample()
	l.Write(Off, x)
	l.Flush()
	if out.Len() > 0 {
		t.Errorf("got %q, want nothing", out.String())
	}
	if n := testing.AllocsPerRun(100, func() {
		l.Write(JSON, x)
		l.Flush()
		out.Reset()
	}); n > 0 {
		t.Errorf("a line costs %v allocations, want 0", n)
	}
}
