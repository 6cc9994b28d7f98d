package node

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/part"
)

// fleet are three servers that are alive, with the changes given by name.
func fleet(changes map[string]func(*part.Member)) []part.Member {
	var out []part.Member
	for _, name := range []string{"s1", "s2", "s3"} {
		m := part.Member{Name: name, Alive: true}
		if f := changes[name]; f != nil {
			f(&m)
		}
		out = append(out, m)
	}
	return out
}

func gone(m *part.Member)    { m.Alive = false }
func drained(m *part.Member) { m.Drained = true }
func ill(name string) func(*part.Member) {
	return func(m *part.Member) { m.Problems = map[string]string{name: "does not answer"} }
}

func TestChangeDrained(t *testing.T) {
	type changes = map[string]func(*part.Member)
	tests := []struct {
		name    string
		was     []string
		members changes
		server  string
		undrain bool
		want    []string
		err     string
	}{
		{name: "first", server: "s2", want: []string{"s2"}},
		{name: "second", was: []string{"s3"}, server: "s1", want: []string{"s1", "s3"}},
		{name: "again", was: []string{"s2"}, server: "s2", want: []string{"s2"}},
		{name: "back", was: []string{"s1", "s2"}, server: "s1", undrain: true, want: []string{"s2"}},
		{name: "back, was not drained", was: []string{"s2"}, server: "s1", undrain: true, want: []string{"s2"}},
		{
			name: "last", was: []string{"s1", "s2"}, server: "s3",
			err: "no other server would be left to answer visitors: s1 is drained, s2 is drained",
		},
		{
			name: "others away", members: changes{"s1": gone, "s2": ill(part.App)}, server: "s3",
			err: "no other server would be left to answer visitors: s1 is not there, s2 has a problem with app (does not answer)",
		},
		{name: "one that is away", members: changes{"s3": gone}, server: "s3", want: []string{"s3"}},
		{name: "another's database is ill", was: []string{"s1"}, members: changes{"s2": ill(part.Database)}, server: "s3", want: []string{"s1", "s3"}},
		{name: "what members say of drains is old", members: changes{"s1": drained, "s2": drained}, server: "s3", want: []string{"s3"}},
		{name: "unknown", server: "s4", err: `the site has no server "s4"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := changeDrained(tt.was, fleet(tt.members), tt.server, !tt.undrain)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if diff := cmp.Diff(tt.err, text); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("drained (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnother(t *testing.T) {
	tests := []struct {
		name    string
		changes map[string]func(*part.Member)
		want    bool
	}{
		{"all are well", nil, true},
		{"others are away", map[string]func(*part.Member){"s2": gone, "s3": gone}, false},
		{"others are drained or ill", map[string]func(*part.Member){"s2": drained, "s3": ill(part.Balancer)}, false},
		{"the other's web is ill", map[string]func(*part.Member){"s2": gone, "s3": ill(part.Web)}, true},
	}
	for _, tt := range tests {
		if got := another(fleet(tt.changes), "s1"); got != tt.want {
			t.Errorf("%s: another = %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Only the balancer is told who is drained, and only while somebody else is there.
func TestCutDrained(t *testing.T) {
	whole := composed(t)
	before := map[string]part.State{}
	names := []string{part.Firewall, part.Certificate, part.Web, part.App, part.Router}
	for _, name := range names {
		before[name] = cut(name, whole, issued{})
	}
	whole.Members[1].Drained = true
	for _, name := range names {
		if diff := cmp.Diff(before[name], cut(name, whole, issued{})); diff != "" {
			t.Errorf("%s would be applied anew for a drain:\n%s", name, diff)
		}
	}
	if !cut(part.Balancer, whole, issued{}).Members[1].Drained {
		t.Error("balancer is not told of a drain")
	}
	whole.Members[0].Drained = true // s3 is not alive: nobody is left
	for _, m := range cut(part.Balancer, whole, issued{}).Members {
		if m.Drained {
			t.Errorf("balancer is to leave out %s, and nobody is left", m.Name)
		}
	}
	if !whole.Members[0].Drained {
		t.Error("cut changed the whole")
	}
}
