package database

import "trivet/internal/metric"

// meters are the gauges of this server's node; a nil registry gives none.
type meters struct {
	synced, writer, queries, threads, paused, size metric.Gauge
}

func newMeters(r *metric.Registry) *meters {
	if r == nil {
		return nil
	}
	gauge := func(name, help string) metric.Gauge { return r.Gauge(name, help).WithLabelValues() }
	return &meters{
		synced:  gauge("trivet_database_synced", "1 while this server's database node is healthy."),
		writer:  gauge("trivet_database_writer", "1 while this server takes the writes."),
		queries: gauge("trivet_database_queries", "Statements since mariadbd started."),
		threads: gauge("trivet_database_threads_connected", "Open connections to mariadbd."),
		paused:  gauge("trivet_database_flow_control_paused_seconds", "Time that replication was paused for slow nodes since mariadbd started."),
		size:    gauge("trivet_database_cluster_size", "Nodes in this node's group."),
	}
}

func (m *meters) set(v view, synced bool) {
	if m == nil {
		return
	}
	m.synced.Set(truth(synced))
	m.writer.Set(truth(synced && v.role.Writer == v.self))
	m.queries.Set(v.health.queries)
	m.threads.Set(v.health.threads)
	m.paused.Set(v.health.paused.Seconds())
	m.size.Set(float64(v.health.size))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
