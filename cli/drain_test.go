package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/part"
	"trivet/node"
)

func TestDrainLeft(t *testing.T) {
	says := func(server, state string, inFlight int64) balancerReport {
		return balancerReport{Server: server, Balancer: &part.BalancerStatus{Backends: []part.BackendStatus{
			{Name: "s1", State: "up", InFlight: 9}, {Name: "s2", State: state, InFlight: inFlight},
		}}}
	}
	tests := []struct {
		name    string
		view    drainView
		drained bool
		want    []string
	}{
		{"done", drainView{holder: "s1", balancers: []balancerReport{says("s1", "drained", 0), says("s2", "drained", 0)}}, true, nil},
		{"requests", drainView{holder: "s1", balancers: []balancerReport{says("s1", "drained", 1), says("s3", "drained", 20)}}, true, []string{"1 request from s1", "20 requests from s3"}},
		{"address on its way", drainView{holder: "", balancers: []balancerReport{says("s1", "drained", 0)}}, true, []string{"no other server has taken the floating address yet"}},
		{"not followed", drainView{holder: "s1", balancers: []balancerReport{says("s1", "up", 3)}}, true, []string{"the balancer of s1 has not followed yet"}},
		{"address", drainView{holder: "s2", balancers: []balancerReport{says("s1", "drained", 0)}}, true, []string{"s2 holds the floating address"}},
		{"silent", drainView{holder: "s1", balancers: []balancerReport{{Server: "s3", Error: "its node does not answer"}}}, true, []string{"the balancer of s3 cannot be asked (its node does not answer)"}},
		{"no state yet", drainView{holder: "s1", balancers: []balancerReport{{Server: "s3", Balancer: &part.BalancerStatus{}}}}, true, []string{"the balancer of s3 does not know s2 yet"}},
		{
			"the others have gone",
			drainView{holder: "s2", spared: true, balancers: []balancerReport{says("s1", "up", 3)}},
			true,
			[]string{"no other server is there any more, so that s2 gets requests all the same"},
		},
		{"back", drainView{holder: "s2", balancers: []balancerReport{says("s1", "slow-start", 7)}}, false, nil},
		{"not back", drainView{holder: "s1", balancers: []balancerReport{says("s1", "drained", 0)}}, false, []string{"the balancer of s1 has not followed yet"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.view.left("s2", tt.drained)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDrainOutcome(t *testing.T) {
	tests := []struct {
		name   string
		d      drainOutcome
		status int
		want   string
	}{
		{"drained", drainOutcome{Server: "s2", Drained: true, Changed: true, Done: true}, 0, "s2 is drained and has no requests; `trivet undrain s2` takes it back\n"},
		{"drained before", drainOutcome{Server: "s2", Drained: true, Done: true}, 0, "s2 is drained and has no requests (it was drained before); `trivet undrain s2` takes it back\n"},
		{"back", drainOutcome{Server: "s2", Changed: true, Done: true}, 0, "s2 gets requests\n"},
		{"was not drained", drainOutcome{Server: "s2", Done: true}, 0, "s2 gets requests (it was not drained)\n"},
		{
			"late",
			drainOutcome{Server: "s2", Drained: true, Changed: true, Left: []string{"2 requests from s1", "1 request from s3"}},
			1,
			"trivet: s2 gets no new requests, but after 40s this is left: 2 requests from s1, 1 request from s3\n" +
				"hint: `trivet drain s2` waits on; `trivet balancer status` shows all; `trivet undrain s2` takes it back\n",
		},
		{
			"not followed",
			drainOutcome{Server: "s2", Left: []string{"the balancer of s1 has not followed yet"}},
			1,
			"trivet: s2 is not drained any more, but after 40s: the balancer of s1 has not followed yet\nhint: `trivet status` shows which part is not healthy\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			e := &env{out: &out, err: &out}
			if got := report(e, tt.d.print(e, drainOptions{}, 40*time.Second)); got != tt.status || out.String() != tt.want {
				t.Errorf("status %d, %q, want %d, %q", got, out.String(), tt.status, tt.want)
			}
		})
	}
	var out bytes.Buffer
	e := &env{out: &out, err: &out}
	late := drainOutcome{Server: "s2", Drained: true, Changed: true, Left: []string{"1 request from s1"}}
	const want = "{\n  \"server\": \"s2\",\n  \"drained\": true,\n  \"changed\": true,\n  \"done\": false,\n  \"left\": [\n    \"1 request from s1\"\n  ]\n}\n"
	if got := report(e, late.print(e, drainOptions{json: true}, time.Second)); got != 1 || out.String() != want {
		t.Errorf("as JSON: status %d, %s", got, out.String())
	}
}

// A node that refuses has the last word; one that cannot be reached has none.
func TestFirstAnswer(t *testing.T) {
	away := fmt.Errorf("s1: %w", node.ErrUnreachable)
	refused := errors.New("s2: no other server would be left")
	clients := []*node.Client{{Server: "s1"}, {Server: "s2"}, {Server: "s3"}}
	tests := []struct {
		name string
		says map[string]error
		want string
		err  error
	}{
		{"first", nil, "s1", nil},
		{"second", map[string]error{"s1": away}, "s2", nil},
		{"refused", map[string]error{"s1": away, "s2": refused}, "", refused},
		{"nobody", map[string]error{"s1": away, "s2": away, "s3": away}, "", node.ErrUnreachable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := firstAnswer(context.Background(), clients, func(c *node.Client) (string, error) { return c.Server, tt.says[c.Server] })
			if !errors.Is(err, tt.err) || (err == nil && got != tt.want) {
				t.Errorf("firstAnswer = %q, %v, want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}
