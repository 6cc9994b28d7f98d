package node

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trivet/cluster"
)

// A declaration without a site would leave no server with anything to compose a state from.
func TestDeclarationWithoutSite(t *testing.T) {
	handlers := map[string]func(*Node, *http.Request) (any, error){
		"apply": (*Node).handleApply,
		"plan":  (*Node).handlePlan,
	}
	for name, handle := range handlers {
		for _, body := range []string{`{}`, `{"site":null}`, `{`, ``} {
			t.Run(name+" "+body, func(t *testing.T) {
				r := httptest.NewRequest(http.MethodPost, "/v1/"+name, strings.NewReader(body))
				if v, err := handle(&Node{}, r); err == nil {
					t.Errorf("answer = %v, want an error", v)
				}
			})
		}
	}
}

// control serves what a node would on a socket and returns a client of it.
func control(t *testing.T, h http.Handler) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	c := Dial("s1", path)
	t.Cleanup(func() { c.http.CloseIdleConnections(); srv.Close() })
	return c
}

func TestClientTellsWhatTheNodeSaid(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"refused", errors.New("read declaration: it declares no site"), "s1: read declaration: it declares no site"},
		{"no quorum", fmt.Errorf("declare site: %w", cluster.ErrNoQuorum), "s1: declare site: " + cluster.ErrNoQuorum.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := control(t, answer(func(*http.Request) (any, error) { return nil, tt.err }))
			if _, err := c.Status(t.Context()); err == nil || err.Error() != tt.want {
				t.Errorf("Status = %v, want %s", err, tt.want)
			}
		})
	}
}

func TestClientWithoutNode(t *testing.T) {
	c := Dial("s1", filepath.Join(t.TempDir(), "none"))
	if _, err := c.Status(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("Status = %v, want ErrUnreachable", err)
	}
}

// A server that is frozen takes the connection and never answers.
func TestClientWithSilentNode(t *testing.T) {
	hold := make(chan struct{})
	c := control(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	t.Cleanup(func() { close(hold) }) // before the server is closed, which waits for its answers
	err := c.call(t.Context(), http.MethodGet, "/v1/status", 20*time.Millisecond, nil, &Status{})
	const want = "s1: its node does not answer (no answer after 20ms)"
	if !errors.Is(err, ErrUnreachable) || err.Error() != want {
		t.Errorf("call = %v, want %s", err, want)
	}
}

// A stream lasts longer than its first byte may take to come.
func TestClientClosesLogs(t *testing.T) {
	ended := make(chan struct{})
	c := control(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("a line\n"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(ended)
	}))
	logs, err := c.Logs(t.Context(), "app", 1, true)
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(logs).ReadString('\n')
	if line != "a line\n" || err != nil {
		t.Errorf("line = %q, %v, want a line", line, err)
	}
	if err := logs.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("Close leaves the request open")
	}
}
