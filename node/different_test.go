package node

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"trivet/site"
)

func TestDifferent(t *testing.T) {
	was, now := site.Default(), site.Default()
	now.Balancer.Retries, now.Balancer.Health.Path = 1, "/up"
	if diff := cmp.Diff([]string{"balancer.health.path: /healthz → /up", "balancer.retries: 2 → 1"}, different("balancer", was.Balancer, now.Balancer)); diff != "" {
		t.Error(diff)
	}
	now.Monitor.Alerts = []site.Alert{{Name: "busy", Above: 500, For: was.Balancer.Timeout}}
	if diff := cmp.Diff([]string{`monitor.alerts: none → [{"above":500,"for":"30s","name":"busy"}]`}, different("monitor", was.Monitor, now.Monitor)); diff != "" {
		t.Error(diff)
	}
	if got := different("web", was.Web, now.Web); got != nil {
		t.Errorf("of what is the same: %q", got)
	}
}
