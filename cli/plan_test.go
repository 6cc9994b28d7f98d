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

// Who is drained stays so, whatever is applied.
func TestPrintPlan(t *testing.T) {
	var out bytes.Buffer
	const want = "nothing would change\ns2 stays drained: it gets no new requests until `trivet undrain s2`\n"
	if err := printPlan(&out, nil, []string{"s2"}); err != nil || out.String() != want {
		t.Errorf("printed %q, %v, want %q", out.String(), err, want)
	}
}
