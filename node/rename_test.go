package node

import (
	"errors"
	"testing"

	"trivet/site"
)

func TestRenamed(t *testing.T) {
	was := func() *site.Site {
		return &site.Site{
			Name: "foobar", Domain: "www.foobar.com",
			Servers:  []site.Server{{Name: "s1"}, {Name: "s2"}, {Name: "s3"}},
			Database: site.Database{Name: "foobar", User: "foobar", Memory: 64},
		}
	}
	tests := []struct {
		name   string
		change func(*site.Site)
		want   string
	}{
		{"nothing", func(*site.Site) {}, ""},
		{"what may change", func(s *site.Site) { s.Domain, s.Database.Memory = "foobaz.com", 128 }, ""},
		{"site, and with it the database", func(s *site.Site) { s.Name, s.Database.Name, s.Database.User = "foobaz", "foobaz", "foobaz" }, `this lab serves the site "foobar"; the file declares "foobaz"`},
		{"database", func(s *site.Site) { s.Database.Name = "foobaz" }, `database.name is "foobar" and cannot become "foobaz"`},
		{"user", func(s *site.Site) { s.Database.User = "foobaz" }, `database.user is "foobar" and cannot become "foobaz"`},
		{"server", func(s *site.Site) { s.Servers[2].Name = "s4" }, `servers is "s1, s2, s3" and cannot become "s1, s2, s4"`},
		{"order of servers", func(s *site.Site) { s.Servers[0].Name, s.Servers[1].Name = "s2", "s1" }, `servers is "s1, s2, s3" and cannot become "s2, s1, s3"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := was()
			tt.change(now)
			err := Renamed(was(), now)
			got := ""
			if err != nil {
				got = err.Error()
				if _, ok := errors.AsType[RenameError](err); !ok {
					t.Errorf("Renamed = %T, want a RenameError", err)
				}
			}
			if got != tt.want {
				t.Errorf("Renamed = %q, want %q", got, tt.want)
			}
		})
	}
}
