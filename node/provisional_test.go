package node

import (
	"testing"

	"trivet/internal/part"
)

func TestProvisional(t *testing.T) {
	in := func(group string) part.DatabaseMember { return part.DatabaseMember{UUID: "u", Group: group} }
	for _, c := range []struct {
		name  string
		role  part.DatabaseRole
		self  part.DatabaseMember
		want  string
		epoch int64
	}{
		{"writer is in the group", part.DatabaseRole{Writer: "s2", Epoch: 4, UUID: "u"}, in("s1,s2"), "s2", 4},
		{"writer left it", part.DatabaseRole{Writer: "s2", Epoch: 4, UUID: "u"}, in("s1,s3"), "s1", 5},
		{"seen from the other", part.DatabaseRole{Writer: "s2", Epoch: 4, UUID: "u"}, in("s3,s1"), "s1", 5},
		{"the last one", part.DatabaseRole{Writer: "s1", Epoch: 5, UUID: "u"}, in("s3"), "s3", 6},
		{"a name that begins like the writer's", part.DatabaseRole{Writer: "s1", Epoch: 4, UUID: "u"}, in("s10,s2"), "s10", 5},
		{"no group that may write", part.DatabaseRole{Writer: "s2", Epoch: 4, UUID: "u"}, in(""), "s2", 4},
		{"another history", part.DatabaseRole{Writer: "s2", Epoch: 4, UUID: "v"}, in("s1,s3"), "s2", 4},
		{"no writer yet: who is first is agreed, never taken", part.DatabaseRole{UUID: "u"}, in("s1,s3"), "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := provisional(c.role, c.self)
			if got.Writer != c.want || got.Epoch != c.epoch || got.UUID != c.role.UUID {
				t.Errorf("got %+v, want %s in epoch %d", got, c.want, c.epoch)
			}
		})
	}
}

// A writer that was taken without quorum counts until a later epoch is agreed.
func TestEffective(t *testing.T) {
	a := agreed{Role: part.DatabaseRole{Writer: "s1", Epoch: 4, UUID: "u", Bootstrap: "s1"}}
	for _, c := range []struct {
		taken provisionalRole
		want  string
		epoch int64
	}{
		{provisionalRole{}, "s1", 4},
		{provisionalRole{"s2", 5}, "s2", 5},
		{provisionalRole{"s2", 4}, "s1", 4},
	} {
		a.Provisional = c.taken
		if got := a.effective(); got.Writer != c.want || got.Epoch != c.epoch || got.UUID != "u" || got.Bootstrap != "s1" {
			t.Errorf("taken %+v: got %+v, want %s in epoch %d", c.taken, got, c.want, c.epoch)
		}
	}
}

// What an operator had a server do alone counts there until the cluster knows.
func TestEffectiveOwn(t *testing.T) {
	base := part.DatabaseRole{Writer: "s2", Epoch: 4, UUID: "u"}
	own := base
	own.Starts = []part.DatabaseStart{{ID: "x", Server: "s1", Forced: true}}
	a := agreed{Role: base, Own: &ownRole{Base: base, Role: own}, Provisional: provisionalRole{"s1", 5}}
	if got := a.effective(); got.LastStart().ID != "x" || got.Writer != "s1" || got.Epoch != 5 {
		t.Errorf("got %+v, want what was done alone", got)
	}
}

// Each epoch has one writer, whatever was taken while nothing could be agreed.
func TestSettle(t *testing.T) {
	r := part.DatabaseRole{Writer: "s1", Epoch: 4}
	for _, c := range []struct {
		taken provisionalRole
		want  string
		epoch int64
	}{
		{provisionalRole{}, "s1", 4},
		{provisionalRole{"s2", 3}, "s1", 4},
		{provisionalRole{"s1", 4}, "s1", 4},
		{provisionalRole{"s2", 4}, "s1", 5},
		{provisionalRole{"s2", 5}, "s2", 5},
	} {
		if got := c.taken.settle(r); got.Writer != c.want || got.Epoch != c.epoch {
			t.Errorf("taken %+v: got %s in epoch %d, want %s in %d", c.taken, got.Writer, got.Epoch, c.want, c.epoch)
		}
	}
}
