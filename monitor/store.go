package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"

	"trivet/internal/process"
)

// reserve is the free space that the series leave to others, above all to the
// database: below it nothing is appended.
const reserve = 64 << 20

// errNotOpen is the state of a Store before Run has opened it.
var errNotOpen = errors.New("series are not open yet")

// Store keeps the series on disk, in Prometheus's TSDB. What cannot be stored
// is lost to it, never waited for: the newest hour is in the Ring all the same.
type Store struct {
	log *slog.Logger
	dir string

	mu         sync.Mutex
	db         *tsdb.DB
	broken     error         // why nothing is being stored; nil while it works
	reopen     chan struct{} // a new retention, or an error: open anew
	retain     time.Duration
	generation int
}

// NewStore returns the store in the folder dir; Run opens it.
func NewStore(log *slog.Logger, dir string) *Store {
	return &Store{log: log, dir: dir, broken: errNotOpen, reopen: make(chan struct{}, 1)}
}

// Retain sets for how long series are kept. The first call lets Run open the store.
func (s *Store) Retain(d time.Duration) {
	s.mu.Lock()
	changed := d != s.retain
	s.retain = d
	s.mu.Unlock()
	if changed {
		s.again()
	}
}

func (s *Store) again() {
	select {
	case s.reopen <- struct{}{}:
	default:
	}
}

// Run opens the store, opens it anew after an error, and closes it when ctx ends.
func (s *Store) Run(ctx context.Context) {
	back := process.Backoff{Min: time.Second, Max: 30 * time.Second}
	defer s.close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.reopen:
		}
		for {
			if err := s.open(); err == nil {
				back.Reset()
				break
			}
			if back.Wait(ctx) != nil {
				return
			}
		}
	}
}

// open closes what is open, and opens it with the retention that is wanted.
func (s *Store) open() error {
	s.close()
	err := enough(s.dir)
	var db *tsdb.DB
	if err == nil {
		db, err = tsdb.Open(s.dir, quiet(s.log), nil, s.options(), nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db, s.broken = db, err
	s.generation++
	if err != nil {
		s.broken = fmt.Errorf("open series: %w", err)
	}
	return err
}

// options are TSDB's, small: three of these run beside a database.
func (s *Store) options() *tsdb.Options {
	s.mu.Lock()
	defer s.mu.Unlock()
	half := (30 * time.Minute).Milliseconds()
	o := tsdb.DefaultOptions()
	o.RetentionDuration = s.retain.Milliseconds()
	o.MinBlockDuration = half
	o.MaxBlockDuration = max(half, min(o.RetentionDuration/10, 16*half))
	o.StripeSize = 512
	o.WALSegmentSize = 8 << 20
	o.WALCompression = compression.Snappy
	o.WALReplayConcurrency = 1
	o.HeadChunksWriteBufferSize = 64 << 10 // the least that it takes
	o.HeadChunksWriteQueueSize = 0
	o.MaxBlockChunkSegmentSize = 32 << 20
	o.SamplesPerChunk = 240
	o.IsolationDisabled = true // one appender, and readers may see a half-written second
	o.EnableExemplarStorage = false
	return o
}

func (s *Store) close() {
	s.mu.Lock()
	db := s.db
	s.db = nil
	if db != nil {
		s.broken = errNotOpen
	}
	s.mu.Unlock()
	if db != nil {
		if err := db.Close(); err != nil {
			s.log.Warn("close series", "err", err)
		}
	}
}

// Append calls fill with an appender and commits what it appended. The
// appender is nil while nothing can be stored. The generation changes when the
// store was opened anew: series references of another one are void.
func (s *Store) Append(ctx context.Context, fill func(a storage.Appender, generation int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		fill(nil, s.generation)
		return
	}
	if s.broken = enough(s.dir); s.broken != nil {
		fill(nil, s.generation)
		return
	}
	a := s.db.Appender(ctx)
	fill(a, s.generation)
	if err := a.Commit(); err != nil {
		s.broken = fmt.Errorf("store series: %w", err)
		s.again()
	}
}

// Check says why nothing is being stored, or nil.
func (s *Store) Check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// enough returns an error when the disk below dir is nearly full.
func enough(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at disk of %s: %w", dir, err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < reserve {
		return fmt.Errorf("disk is full: %d MiB left under %s, series need %d MiB; the newest hour is kept in memory; free some space", free>>20, dir, reserve>>20)
	}
	return nil
}

// quiet lets only what an operator wants to see through TSDB's talk.
func quiet(log *slog.Logger) *slog.Logger {
	return slog.New(above{log.Handler(), slog.LevelWarn})
}

// above is a handler that drops records below a level.
type above struct {
	slog.Handler
	level slog.Level
}

func (a above) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= a.level && a.Handler.Enabled(ctx, l)
}

func (a above) WithAttrs(attrs []slog.Attr) slog.Handler {
	return above{a.Handler.WithAttrs(attrs), a.level}
}

func (a above) WithGroup(name string) slog.Handler {
	return above{a.Handler.WithGroup(name), a.level}
}
