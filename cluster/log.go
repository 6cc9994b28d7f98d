package cluster

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Bounds of what etcd may say.
const (
	logEvery = time.Minute // the same message at most once in this time
	logKinds = 50          // messages in one such time; the rest is dropped
)

// noise is what etcd says at every start of a member that is set up as ours is.
var noise = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.":             true, // there is no client port
	"simple token is not cryptographically signed":                                                     true, // nobody signs in
	"unable to set a member local address due to lack of suitable local addresses":                     true, // on loopback
	"Failed to detect schema version":                                                                  true, // of an empty store, until its first snapshot
	"prober detected unhealthy status":                                                                 true, // also of peers that are well; that one is gone is seen by its lease
	"failed to update storage version":                                                                 true,
	"Failed to detect storage schema version. Please wait till wal snapshot before upgrading cluster.": true,
}

// newLogger passes etcd's warnings and errors to log, bounded, and drops the rest.
func newLogger(log *slog.Logger) *zap.Logger {
	return zap.New(&core{log: log, seen: &seen{}}, zap.AddStacktrace(zapcore.InvalidLevel))
}

type core struct {
	log  *slog.Logger
	seen *seen
}

func (c *core) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With drops the fields: they repeat the member's name.
func (c *core) With([]zapcore.Field) zapcore.Core { return c }

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !noise[e.Message] && (e.Level > zapcore.ErrorLevel || c.seen.first(e.Message, e.Time)) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	level := slog.LevelWarn
	if e.Level >= zapcore.ErrorLevel {
		level = slog.LevelError
	}
	attrs := []slog.Attr{slog.String("by", "etcd")}
	if err, ok := enc.Fields["error"]; ok {
		attrs = append(attrs, slog.Any("error", err))
	}
	for _, key := range []string{"remote-peer-id", "peer-id", "remote-addr", "took"} {
		if v, ok := enc.Fields[key]; ok {
			attrs = append(attrs, slog.Any(key, v))
		}
	}
	c.log.LogAttrs(context.Background(), level, e.Message, attrs...)
	return nil
}

func (c *core) Sync() error { return nil }

// seen remembers the messages of the current minute.
type seen struct {
	mu    sync.Mutex
	since time.Time
	said  map[string]bool
}

func (s *seen) first(message string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said == nil || now.Sub(s.since) > logEvery {
		s.since, s.said = now, map[string]bool{}
	}
	if s.said[message] || len(s.said) >= logKinds {
		return false
	}
	s.said[message] = true
	return true
}
