package database

import (
	"time"

	"trivet/internal/metric"
)

// meters are the instruments of this server's node; a nil registry gives none.
type meters struct {
	synced, writer, threads, paused, size metric.Gauge
	disk, refusing, ddl                   metric.Gauge

	queries metric.Counter
	counted float64 // mariadbd's own count when it was last looked at; negative: never
}

func newMeters(r *metric.Registry) *meters {
	if r == nil {
		return nil
	}
	gauge := func(name, help string) metric.Gauge { return r.Gauge(name, help).WithLabelValues() }
	return &meters{
		synced:   gauge("trivet_database_synced", "1 while this server's database node is healthy."),
		writer:   gauge("trivet_database_writer", "1 while this server takes the writes."),
		threads:  gauge("trivet_database_threads_connected", "Open connections to mariadbd."),
		paused:   gauge("trivet_database_flow_control_paused_seconds", "Time that replication was paused for slow nodes since mariadbd started."),
		size:     gauge("trivet_database_cluster_size", "Nodes in this node's group."),
		disk:     gauge("trivet_database_disk_used_percent", "How much of the disk that holds the database is in use, by whatever."),
		refusing: gauge("trivet_database_writes_refused", "1 while this server's database refuses writes, for want of room."),
		ddl:      gauge("trivet_database_large_change_seconds", "For how long a large table has been changed (ALTER and the like) here; 0: none is."),
		queries:  r.Counter("trivet_database_queries_total", "Statements that mariadbd has run since this node began to look.").WithLabelValues(),
		counted:  -1,
	}
}

func (m *meters) set(v view, synced bool) {
	if m == nil {
		return
	}
	m.synced.Set(truth(synced))
	m.writer.Set(truth(synced && v.role.Writer == v.self))
	m.threads.Set(v.health.threads)
	m.paused.Set(v.health.paused.Seconds())
	m.size.Set(float64(v.health.size))
	m.disk.Set(100 * v.disk.used)
	m.refusing.Set(truth(v.full))
	m.ddl.Set(v.ddl.lasts().Seconds())
	if v.health.answers && amid(time.Now()) {
		m.count(v.health.queries)
	}
}

// amid reports whether t is in the middle of a second. The monitor reads at
// whole seconds: what is counted then would fall into this second or the next,
// as it comes, and a steady rate would look like a saw.
func amid(t time.Time) bool {
	into := t.Sub(t.Truncate(time.Second))
	return into >= 300*time.Millisecond && into < 800*time.Millisecond
}

// count adds what mariadbd has run since the last look. What it had run before
// the first is not counted: a new node would report it all as of one second.
func (m *meters) count(queries float64) {
	switch {
	case m.counted < 0:
	case queries < m.counted: // mariadbd began anew
		m.queries.Add(queries)
	default:
		m.queries.Add(queries - m.counted)
	}
	m.counted = queries
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
