package cli

import (
	"bytes"
	"strings"
	"testing"

	"trivet/internal/part"
	"trivet/node"
)

// What somebody wanted so is said, and is no ill health.
func TestStatusRemarks(t *testing.T) {
	o := fleet{Servers: []serverStatus{{Server: "s1", Power: "running", status: node.Status{
		Quorum: true, Revision: 3, AddressHolder: "s1", Writer: "s1", Maintenance: true,
		Members: []part.Member{{Name: "s1", Alive: true}, {Name: "s2", Alive: true, Drained: true}},
	}}, {Server: "s2", Power: "running", status: node.Status{Quorum: true, Revision: 3, Maintenance: true, Members: []part.Member{{Name: "s1", Alive: true}, {Name: "s2", Alive: true, Drained: true}}}}}}
	for i := range o.Servers {
		o.Servers[i].Parts = []node.PartStatus{{Name: part.Web, Healthy: true}}
	}
	o.summarise()
	if !o.Healthy {
		t.Error("a drain makes the site count as not healthy")
	}
	var out bytes.Buffer
	if err := o.print(&out); err != nil {
		t.Fatal(err)
	}
	compareGolden(t, "status-remarks.txt", out.Bytes())
	for i := range o.Servers {
		o.Servers[i].status.Members[0].Alive = false
	}
	o.summarise()
	if want := "s2 is drained, but gets requests all the same: no server is there that is not drained"; o.remarks()[1] != want {
		t.Errorf("remarks = %q, want %q", o.remarks(), want)
	}
}

// A cluster that takes no changes is no health, however well the parts are.
func TestStatusCluster(t *testing.T) {
	o := fleet{Servers: []serverStatus{
		{Server: "s1", Power: "running", Cluster: "its store is full", Parts: []node.PartStatus{{Name: part.Web, Healthy: true}}},
		{Server: "s2", Power: "running", Parts: []node.PartStatus{{Name: part.Web, Healthy: true}}},
	}}
	for i := range o.Servers {
		o.Servers[i].status = node.Status{Quorum: true, Revision: 3, AddressHolder: "s1", Writer: "s1"}
	}
	o.summarise()
	var out bytes.Buffer
	if err := o.print(&out); err != nil {
		t.Fatal(err)
	}
	if o.Healthy || !strings.Contains(out.String(), "\ns1 cluster: its store is full\n") {
		t.Errorf("healthy %v:\n%s\nwant that it is not, and why", o.Healthy, out.String())
	}
}
