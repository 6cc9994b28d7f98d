package firewall

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/part"
	"trivet/site"
)

var update = flag.Bool("update", false, "write the golden files")

// lab is the State of server s1 in a plain lab.
func lab() part.State {
	return part.State{
		Server: "s1",
		Site: &site.Site{
			Name: "foobar", Domain: "www.foobar.com",
			Servers: []site.Server{
				{Name: "s1", Address: "10.83.0.11"}, {Name: "s2", Address: "10.83.0.12"}, {Name: "s3", Address: "10.83.0.13"},
			},
			Admin: []string{"10.83.0.1/32"},
		},
	}
}

// rich is a State that makes every kind of rule.
func rich() part.State {
	s := lab()
	s.Server = "s2"
	s.Site.Servers[2].Address = "2001:db8:83::13"
	s.Site.Admin = []string{"192.0.2.0/24", "2001:db8::/32", "198.51.100.7"}
	s.Site.Firewall.Egress = []site.Egress{
		{To: "203.0.113.0/25", Ports: []int{443, 8443}}, {To: "2001:db8:9::/48", Ports: []int{25}}, {To: "0.0.0.0/0", Ports: []int{465}},
	}
	s.Site.Monitor.Alerts = []site.Alert{
		{Name: "a", Webhook: "https://203.0.113.9/hook"},
		{Name: "b", Webhook: "http://[2001:db8::9]:8080/"},
		{Name: "c", Webhook: "https://hooks.example.com/x"},
		{Name: "d", Webhook: "https://hooks.example.com/y"},
		{Name: "e"},
	}
	return s
}

func compiled(t *testing.T, s part.State) Policy {
	t.Helper()
	p, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCompileGolden(t *testing.T) {
	for name, s := range map[string]part.State{"lab": lab(), "rich": rich()} {
		t.Run(name, func(t *testing.T) {
			got := compiled(t, s).String()
			path := filepath.Join("testdata", name+".nft")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("policy differs from %s (-want +got):\n%s", path, diff)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*part.State)
		want  string
	}{
		{"no site", func(s *part.State) { s.Site = nil }, "no site"},
		{"stranger", func(s *part.State) { s.Server = "s9" }, `"s9" is not in the site`},
		{"address", func(s *part.State) { s.Site.Servers[1].Address = "s2.example" }, "address of server s2"},
		{"admin", func(s *part.State) { s.Site.Admin = []string{"10.0.0.0/33"} }, "read admin"},
		{"egress", func(s *part.State) { s.Site.Firewall.Egress = []site.Egress{{To: "everywhere"}} }, "read firewall.egress"},
		{"port", func(s *part.State) { s.Site.Firewall.Egress = []site.Egress{{To: "10.0.0.0/8", Ports: []int{70000}}} }, "port 70000"},
		{"webhook", func(s *part.State) { s.Site.Monitor.Alerts = []site.Alert{{Name: "a", Webhook: "ftp://x"}} }, `alert "a"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := lab()
			tc.spoil(&s)
			if _, err := Compile(s); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Compile: %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestDiff(t *testing.T) {
	old := compiled(t, lab())
	s := lab()
	s.Site.Admin = []string{"10.83.0.2/32"}
	got := Diff(old, compiled(t, s))
	want := []string{
		`- input: ip saddr 10.83.0.1 tcp dport 22 accept comment "operator"`,
		`- input: ip saddr 10.83.0.1 tcp dport 9443 accept comment "operator"`,
		`- output: ip daddr 10.83.0.1 tcp sport 22 tcp flags & (syn | rst | ack) == ack accept comment "operator's session when the firewall comes up"`,
		`+ input: ip saddr 10.83.0.2 tcp dport 22 accept comment "operator"`,
		`+ input: ip saddr 10.83.0.2 tcp dport 9443 accept comment "operator"`,
		`+ output: ip daddr 10.83.0.2 tcp sport 22 tcp flags & (syn | rst | ack) == ack accept comment "operator's session when the firewall comes up"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Diff (-want +got):\n%s", diff)
	}
	if got := Diff(old, old); len(got) > 0 {
		t.Errorf("Diff of the same: %q, want nothing", got)
	}
	if got, want := len(Diff(Policy{}, old)), len(old.lines()); got != want {
		t.Errorf("Diff from nothing has %d lines, want %d", got, want)
	}
}
