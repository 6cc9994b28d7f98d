package app

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"trivet/internal/part"
	"trivet/site"
)

// What counts as well is what the site file says.
func TestCheckStatus(t *testing.T) {
	tests := []struct {
		status string
		code   int
		want   string
	}{
		{"200-299", http.StatusOK, ""},
		{"200-299", http.StatusNoContent, ""},
		{"200-299", http.StatusFound, "/healthz answers 302"},
		{"204", http.StatusOK, "/healthz answers 200"},
		{"500-503", http.StatusServiceUnavailable, ""},
	}
	for _, tt := range tests {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(tt.code) }))
		c := newChecker(part.Instance{Network: "tcp", Address: srv.Listener.Addr().String()})
		err := c.get(t.Context(), "www.foobar.com", site.Health{Path: "/healthz", Status: tt.status, Timeout: site.Duration(5 * time.Second)})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%d where %s is well: %q, want %q", tt.code, tt.status, got, tt.want)
		}
		c.close()
		srv.Close()
	}
}
