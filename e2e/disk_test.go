package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// One server's disk gets full at a stroke. Its database ends, and says why;
// the two others go on: no failed GET, no acknowledged post lost. The writer's
// gives the others a moment to end first, so posts wait longer for it.
func TestDiskFull(t *testing.T) {
	for _, writer := range []bool{false, true} {
		t.Run(fmt.Sprintf("writer=%v", writer), func(t *testing.T) {
			ensureUp(t)
			s, err := ring.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			server := "s1" // the first in line to become the writer
			if !writer {
				server = Servers[slices.IndexFunc(Servers, func(n string) bool { return n != s.AddressHolder && n != s.Writer })]
			}
			t.Cleanup(func() { done(t, bigDisk, server) })
			done(t, smallDisk, server)
			eventually(t, 40*time.Second, "the database has got a copy onto the small disk", healthy(t))
			if writer {
				done(t, leads, server)
			}
			diskFills(t, server)
		})
	}
}

func healthy(t *testing.T) func() bool {
	return func() bool {
		s, err := ring.Status(t.Context())
		return err == nil && s.Healthy
	}
}

// done has a deed done to a server.
func done(t *testing.T, d deed, server string) {
	t.Helper()
	if err := d(context.WithoutCancel(t.Context()), ring, server); err != nil {
		t.Fatal(err)
	}
}

// diskFills fills a server's disk under load, and empties it again.
func diskFills(t *testing.T, server string) {
	t.Helper()
	var begun, resumed time.Time
	l := load(t, func(l *Load) {
		begun = time.Now()
		done(t, fillDisk, server)
		eventually(t, 20*time.Second, "the status names the disk", func() bool {
			return strings.Contains(problem(t, server), "disk is full")
		})
		if out, err := ring.Run(t.Context(), "status"); err == nil || !strings.Contains(out, "disk is full") {
			t.Errorf("status: %v\n%s\nwant exit status 1 and the disk named", err, out)
		}
		n := acked(l)
		eventually(t, 10*time.Second, "posts are acknowledged", func() bool { return acked(l) > n+40 })
		resumed = time.Now()
		done(t, emptyDisk, server)
		eventually(t, 40*time.Second, "all is healthy again", healthy(t))
	})
	l.whole(t)
	gap := l.Gap(begun, resumed)
	t.Logf("longest gap between acknowledged posts: %.2f s", gap.Seconds())
	if gap > 8*time.Second {
		t.Errorf("posts resumed after %s, want at most 8 s", gap)
	}
}

// problem is what a server says of its database.
func problem(t *testing.T, server string) string {
	t.Helper()
	s, err := ring.Status(t.Context())
	if err != nil {
		return ""
	}
	for _, v := range s.Servers {
		for _, p := range v.Parts {
			if v.Server == server && p.Name == "database" {
				return p.Problem
			}
		}
	}
	return ""
}
