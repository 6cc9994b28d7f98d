package cli

import (
	"bytes"
	"testing"

	"trivet/node"
)

func TestPrintChanges(t *testing.T) {
	var out bytes.Buffer
	err := printChanges(&out, []node.Change{
		{Server: "s1", Part: "balancer", What: "a"},
		{Server: "s1", Part: "app", What: "a"},
		{Server: "s2", Part: "balancer", What: "a"},
		{Server: "s3", Part: "balancer", What: "b"},
	})
	const want = "s1 s2  balancer  a\ns1     app       a\ns3     balancer  b\n"
	if err != nil || out.String() != want {
		t.Errorf("printed %q, %v, want %q", out.String(), err, want)
	}
}
