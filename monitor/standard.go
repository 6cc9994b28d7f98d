package monitor

import (
	"slices"
	"time"

	"trivet/internal/overview"
	"trivet/internal/part"
	"trivet/site"
)

// lasting is how long what is standard must be wrong: it is measured in hours anyhow.
const lasting = site.Duration(time.Minute)

// standard are the rules that every site has, with the standing that they have
// in now. A backup is due every so often, and so is a rehearsal of its restore:
// twice that is too long.
func standard(now []*rule, s part.State) []*rule {
	b := s.Site.Database.Backup
	var out []*rule
	add := func(name string, due site.Duration, of func(part.State, time.Time) float64) {
		if due <= 0 || b.Every <= 0 {
			return
		}
		r := &rule{
			Alert: site.Alert{Name: name, Above: 2 * due.Std().Hours(), For: lasting, Webhook: firstWebhook(s.Site.Monitor.Alerts)},
			unit:  unitHours, of: of, state: overview.AlertOK,
		}
		if i := slices.IndexFunc(now, func(o *rule) bool { return o.Name == r.Name && o.of != nil && o.Above == r.Above }); i >= 0 {
			r.state, r.since, r.below = now[i].state, now[i].since, now[i].below
		}
		out = append(out, r)
	}
	add("no backup", b.Every, sinceBackup)
	add("no verified restore", b.Drill, sinceVerified)
	return out
}

// firstWebhook is where what is standard is told: the first that the site's own alerts name.
func firstWebhook(own []site.Alert) string {
	if i := slices.IndexFunc(own, func(a site.Alert) bool { return a.Webhook != "" }); i >= 0 {
		return own[i].Webhook
	}
	return ""
}

// sinceBackup is the age of the newest full backup, in hours; of a database
// that never had one it is not known.
func sinceBackup(s part.State, now time.Time) float64 { return hours(now, s.Backup.Last.At) }

// sinceVerified is the time since a restore was last rehearsed and found right,
// or since the first backup, in hours.
func sinceVerified(s part.State, now time.Time) float64 {
	if s.Backup.Verified.At.IsZero() {
		return hours(now, s.Backup.Since)
	}
	return hours(now, s.Backup.Verified.At)
}

func hours(now, t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return now.Sub(t).Hours()
}
