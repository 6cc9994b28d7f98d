package backup

import (
	"context"
	"errors"
	"strings"
	"time"
)

// abandoned is the age at which pieces without a manifest are nobody's any more.
const abandoned = 24 * time.Hour

// expired returns what is no longer needed: all backups but the newest keep and
// the last verified one, the log that leads from none of those kept anywhere,
// and pieces of backups that were never finished. all are the backups whose
// manifest is readable, the oldest first; what cannot be read is never expired.
func expired(c catalog, all []Manifest, keep int, verified string, now time.Time) []string {
	kept, known := map[string]bool{}, map[string]bool{}
	needed := map[string]uint64{} // by chain: the log after it is needed
	for i, m := range all {
		known[m.ID] = true
		if len(all)-i > keep && m.ID != verified {
			continue
		}
		kept[m.ID] = true
		if g, err := parseGTID(m.GTID); err == nil {
			if at, ok := needed[m.Log]; !ok || g.seq < at {
				needed[m.Log] = g.seq
			}
		}
	}
	readable := len(all) == len(c.ids()) // else a log may be needed by what cannot be read
	finished := map[string]bool{}
	for _, id := range c.ids() {
		finished[id] = true
	}
	var out []string
	for name := range c.held {
		if id, ok := backupID(name); ok {
			if known[id] && !kept[id] || !finished[id] && old(id, now) {
				out = append(out, name)
			}
			continue
		}
		p, ok := parseLogName(name)
		if !ok || !readable || len(kept) == 0 {
			continue
		}
		if at, wanted := needed[p.chain]; !wanted || p.last <= at {
			out = append(out, name)
		}
	}
	return out
}

// old reports whether a backup of that id was begun long ago.
func old(id string, now time.Time) bool {
	t, err := time.Parse(idTime, id[:min(len(id), len(idTime))])
	return err == nil && now.Sub(t) > abandoned
}

// tidy removes what is expired from all places; manifests go first, so that
// half a backup never passes for one. It returns how many objects those were.
func tidy(ctx context.Context, places []store, k key, tmp string, keep int, verified string, now time.Time) (int, error) {
	c := look(ctx, places, "")
	all, _ := c.manifests(ctx, tmp, k)
	gone := expired(c, all, keep, verified, now)
	var errs []error
	for _, manifests := range []bool{true, false} {
		for _, name := range gone {
			if strings.HasSuffix(name, "/"+manifestFile) != manifests {
				continue
			}
			for _, i := range c.held[name] {
				if err := c.places[i].remove(ctx, name); err != nil {
					errs = append(errs, err)
				}
			}
		}
		if len(errs) > 0 {
			break
		}
	}
	return len(gone), errors.Join(errs...)
}
