package node

import (
	"testing"
	"time"

	"trivet/internal/part"
	"trivet/site"
)

func TestRotationWaits(t *testing.T) {
	const was, next = "was", "next"
	knows := func(accepts, uses string) func(*part.Member) {
		return func(m *part.Member) { m.Accepts, m.Uses = part.Fingerprint(accepts), part.Fingerprint(uses) }
	}
	for name, c := range map[string]struct {
		r       rotation
		present string
		ensured string // by the database
		members map[string]func(*part.Member)
		want    string
	}{
		"the database has not heard": {
			rotation{Next: next},
			was, was,
			map[string]func(*part.Member){"s1": knows(next, was), "s2": knows(next, was), "s3": knows(next, was)},
			"the database to take the new password",
		},
		"a router has not": {
			rotation{Next: next},
			was, next,
			map[string]func(*part.Member){"s1": knows(next, was), "s2": knows(was, was), "s3": knows(next, was)},
			"the router of s2 to take the new password",
		},
		"a router is not there": {
			rotation{Next: next}, was, next, map[string]func(*part.Member){"s1": knows(next, was), "s2": gone, "s3": knows(next, was)}, "",
		},
		"promoted, and not noted": {
			rotation{Next: next, Old: was}, next, next, map[string]func(*part.Member){"s1": knows(next, was), "s2": knows(next, was), "s3": knows(next, was)}, "",
		},
		"instances have the old one": {
			rotation{Old: was},
			next, next,
			map[string]func(*part.Member){"s1": knows(next, next), "s2": knows(next, next), "s3": knows(next, was)},
			"the app's instances on s3 to be rolled",
		},
		"a server with instances is not there": {
			rotation{Old: was},
			next, next,
			map[string]func(*part.Member){"s1": knows(next, next), "s2": gone, "s3": knows(next, next)},
			"s2, which is not there and may have instances with the old password",
		},
		"all have moved": {
			rotation{Old: was}, next, next, map[string]func(*part.Member){"s1": knows(next, next), "s2": knows(next, next), "s3": knows(next, next)}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := part.State{Members: fleet(c.members), Database: part.DatabaseRole{Writer: "s1"}, Secrets: map[string]string{part.SecretAppDatabase: c.present}}
			s.Members[0].Database.Accepts = part.Fingerprint(c.ensured)
			if got := waitsFor(s, c.r); got != c.want {
				t.Errorf("waits for %q, want %q", got, c.want)
			}
		})
	}
}

func TestRotationDue(t *testing.T) {
	now := time.Now()
	begun := rotation{At: now.Add(-25 * time.Hour)}
	for name, c := range map[string]struct {
		r       rotation
		every   time.Duration
		members map[string]func(*part.Member)
		want    bool
	}{
		"old":              {begun, 24 * time.Hour, nil, true},
		"young":            {begun, 26 * time.Hour, nil, false},
		"by command only":  {begun, 0, nil, false},
		"never looked":     {rotation{}, 24 * time.Hour, nil, false},
		"a server is away": {begun, 24 * time.Hour, map[string]func(*part.Member){"s2": gone}, false},
		"an app is ill":    {begun, 24 * time.Hour, map[string]func(*part.Member){"s2": ill(part.App)}, false},
	} {
		s := part.State{Site: &site.Site{Database: site.Database{Rotate: site.Duration(c.every)}}, Members: fleet(c.members), Database: part.DatabaseRole{Writer: "s1"}}
		if got := rotationDue(s, c.r, now); got != c.want {
			t.Errorf("%s: due = %t, want %t", name, got, c.want)
		}
	}
}

// The password goes from next to present to old in the cluster, in steps that can be taken again.
func testRotation(t *testing.T, nodes []*Node) {
	n := nodes[0]
	first := n.state().Secrets[part.SecretAppDatabase]
	if _, err := n.beginRotation(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[1].beginRotation(t.Context()); err != nil { // at the same time: one comes of it
		t.Fatal(err)
	}
	var next string
	for _, n := range nodes {
		eventually(t, "the next password at "+n.name, func() bool {
			s := n.state().Secrets
			got := s[part.SecretAppDatabaseNext]
			if next == "" {
				next = got
			}
			return got != "" && got == next && s[part.SecretAppDatabase] == first
		})
	}
	_, r := n.rotating()
	for range 2 {
		if err := n.promote(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		eventually(t, "the new password at "+n.name, func() bool {
			s := n.state().Secrets
			return s[part.SecretAppDatabase] == next && s[part.SecretAppDatabaseOld] == first && s[part.SecretAppDatabaseNext] == ""
		})
	}
	if err := n.changeRotation(t.Context(), func(r *rotation) { r.Old = "" }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old password is gone", func() bool { _, r := nodes[1].rotating(); return !r.underWay() })
}
