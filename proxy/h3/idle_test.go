package h3

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// The visitors of TestIdleMemory are another process, so that its memory is not counted.
func TestMain(m *testing.M) {
	if address := os.Getenv("TRIVET_TEST_VISIT"); address != "" {
		n, _ := strconv.Atoi(os.Getenv("TRIVET_TEST_VISITS"))
		visit(address, n)
	}
	os.Exit(m.Run())
}

// visit opens n connections, asks once on each, and stays until it is killed.
func visit(address string, n int) {
	for range n {
		tr := &http3.Transport{TLSClientConfig: clientTLS(), QUICConfig: &quic.Config{}}
		c, err := quic.DialAddr(context.Background(), address, clientTLS(), nil)
		if err != nil {
			os.Exit(1)
		}
		st, err := tr.NewClientConn(c).OpenRequestStream(context.Background())
		if err != nil {
			os.Exit(1)
		}
		r, _ := http.NewRequest("GET", "https://a.b/", nil) // these are valid
		if st.SendRequestHeader(r) != nil || st.Close() != nil {
			os.Exit(1)
		}
		if _, err := st.ReadResponse(); err != nil {
			os.Exit(1)
		}
	}
	select {}
}

// TestIdleMemory says what an idle connection costs; the bound is loose.
func TestIdleMemory(t *testing.T) {
	const n = 200
	s := serve(t, Config{Handle: func(st *Stream) { _ = answer(st, 200, nil, "x") }})
	before := inUse()
	c := exec.CommandContext(t.Context(), os.Args[0])
	c.Env = append(os.Environ(), "TRIVET_TEST_VISIT="+s.address, "TRIVET_TEST_VISITS="+strconv.Itoa(n))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Wait() }()
	defer func() { _ = c.Process.Kill() }()
	until(t, "all have been answered", func() bool {
		connections, requests := s.server.Open()
		return connections == n && requests == 0
	})
	each := (inUse() - before) / n
	t.Logf("%d bytes for each idle connection", each)
	if each > 200<<10 {
		t.Errorf("got %d bytes for each idle connection, want less", each)
	}
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
