package backup

import (
	"time"

	"trivet/internal/metric"
)

type meters struct{ pieces, bytes metric.Counter }

// newMeters registers what is seen of b: of the agreed record on every server,
// of the archive on the one that does the work.
func newMeters(r *metric.Registry, b *Backup) meters {
	if r == nil {
		r = metric.NewRegistry()
	}
	stamp := func(t time.Time) float64 {
		if t.IsZero() {
			return 0
		}
		return float64(t.UnixMilli()) / 1000
	}
	gauge := func(name, help string, f func() float64) {
		r.GaugeFunc(name, help, func() float64 {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.state == nil {
				return 0
			}
			return f()
		})
	}
	gauge("trivet_database_last_backup_timestamp_seconds", "When the newest full backup was made; 0: never.",
		func() float64 { return stamp(b.state.Backup.Last.At) })
	gauge("trivet_database_last_backup_size_bytes", "Size of one copy of the newest full backup.",
		func() float64 { return float64(b.state.Backup.Last.Size) })
	gauge("trivet_database_last_verified_restore_timestamp_seconds", "When a restore was last rehearsed and found right; 0: never.",
		func() float64 { return stamp(b.state.Backup.Verified.At) })
	gauge("trivet_database_archive_lag_seconds", "For how long the oldest transaction that is not in the archive has been waiting, on the server that archives.",
		func() float64 {
			if b.archive == nil || b.archive.oldest.Load() == 0 {
				return 0
			}
			return time.Since(time.UnixMilli(b.archive.oldest.Load())).Seconds()
		})
	return meters{
		pieces: r.Counter("trivet_database_archive_pieces_total", "Pieces of the binary log that were archived.").WithLabelValues(),
		bytes:  r.Counter("trivet_database_archive_bytes_total", "Bytes of the pieces of the binary log that were archived, for each copy.").WithLabelValues(),
	}
}

func (m meters) shipped(bytes int64) {
	m.pieces.Inc()
	m.bytes.Add(float64(bytes))
}
