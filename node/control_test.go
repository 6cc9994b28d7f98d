package node

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

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
