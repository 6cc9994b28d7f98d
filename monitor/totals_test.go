package monitor

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

// TestMeaning: visitors' requests are those of the balancer and, with
// passthrough, of the web server.
func TestMeaning(t *testing.T) {
	tests := []struct {
		process, name, code string
		want                meaning
	}{
		{"balancer", "trivet_requests_total", "200", meansRequest},
		{"balancer", "trivet_requests_total", "502", meansError},
		{"web", "trivet_requests_total", "200", meansRequest},
		{"web", "trivet_requests_total", "502", meansError},
		{"web", "trivet_request_seconds", "", meansLatency},
		{"web", "trivet_in_flight", "", meansInFlight},
		{"web", "trivet_web_requests_total", "200", meansServed},
		{"web", "trivet_web_request_seconds", "", meansNothing},
		{"app-1-1", "trivet_requests_total", "200", meansNothing},
	}
	for _, tt := range tests {
		l := labels.FromStrings("__name__", tt.name, "code", tt.code)
		if got := meaningOf(l, tt.process); got != tt.want {
			t.Errorf("%s %s %s: got %d, want %d", tt.process, tt.name, tt.code, got, tt.want)
		}
	}
}
