// Package backup keeps what the database held: full backups on a schedule, the
// binary log a few seconds behind, both compressed, sealed by a key of the
// site's, and copied to the two other servers and to S3; and it brings any
// moment of that back.
//
// It is a worker of part database, as user mysql, which may run MariaDB's own
// programs. One server at a time does the work (part.BackupRole.Holder): one
// that is synced and, if there is another, not the writer. Every server keeps
// copies for the others and answers the two on its own listener.
//
// Invariants: a backup without a manifest is none, and the manifest comes last;
// nothing is used whose digest or signature does not fit; a restore is whole or
// leaves nothing; the archive's pieces follow one another without a gap, or the
// gap is named; the newest backup that was verified is never removed.
package backup

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"trivet/internal/metric"
	"trivet/internal/mtls"
	"trivet/internal/pace"
	"trivet/internal/part"
	"trivet/site"
)

// Config is what New needs. Folders and the socket are those of package part
// unless they are set.
type Config struct {
	Log     *slog.Logger
	Metrics *metric.Registry
	Peer    net.Listener // for the two others; mutual TLS is put on it
	Control net.Listener // for node, which speaks for the operator

	// Hold takes the work, or lets go of it; it reports whether this server has it.
	Hold func(ctx context.Context, want bool) (bool, error)
	// Record agrees on what became of it.
	Record func(ctx context.Context, r part.BackupRole) error

	Dir, Data, Socket string
	Port              int           // where the others' Peer listens
	FirstAfter        time.Duration // of having the work: the first backup of all
}

// Backup is the worker. It implements part.Part.
type Backup struct {
	cfg    Config
	log    *slog.Logger
	source mtls.Source
	folder folder
	meters meters
	kick   chan struct{}
	task   chan struct{} // holds one token: whoever has it may back up, restore or drill

	mu      sync.Mutex
	state   *part.State
	key     key
	keyErr  error
	places  []store
	placed  string // what places were made from
	s3Err   error
	archive *archive // while it runs
	stop    context.CancelFunc
	since   time.Time          // of having the work
	synced  time.Time          // when this server last was, or made a backup
	shun    time.Time          // until when the work is left to others: our log does not go on from the archive's end
	gap     bool               // nobody's does: a new backup is wanted
	stuck   error              // why the archive does not go on
	cancel  context.CancelFunc // of a full backup
	done    part.BackupRole    // what this process has agreed on itself
}

// New returns a worker that does nothing before Run.
func New(cfg Config) *Backup {
	cfg.Dir = cmp.Or(cfg.Dir, part.BackupDir)
	cfg.Data = cmp.Or(cfg.Data, part.DatabaseDir)
	cfg.Socket = cmp.Or(cfg.Socket, part.SQLSocket)
	cfg.Port = cmp.Or(cfg.Port, part.PortBackup)
	cfg.FirstAfter = cmp.Or(cfg.FirstAfter, 10*time.Minute)
	b := &Backup{cfg: cfg, log: cfg.Log, kick: make(chan struct{}, 1), task: make(chan struct{}, 1)}
	b.task <- struct{}{}
	b.meters = newMeters(cfg.Metrics, b)
	return b
}

func (b *Backup) tmp() string { return filepath.Join(b.cfg.Dir, "tmp") }

func (b *Backup) marks() marks { return marks{filepath.Join(b.cfg.Dir, "marks")} }

// Apply takes over identity, key, places and roles.
func (b *Backup) Apply(_ context.Context, s part.State) error {
	if err := b.source.Set(s.Identity, s.Bundle); err != nil {
		return fmt.Errorf("use identity: %w", err)
	}
	k, err := parseKey(s.Secrets[part.SecretBackup])
	b.mu.Lock()
	defer b.mu.Unlock()
	b.key, b.keyErr = k, err
	b.folder = folder{s.Server, b.cfg.Dir}
	b.place(s)
	s.Backup = newest(s.Backup, b.done)
	b.state = &s
	select {
	case b.kick <- struct{}{}:
	default:
	}
	return nil
}

// place makes the stores anew if they have changed; b.mu is held.
func (b *Backup) place(s part.State) {
	s3 := s.Site.Database.Backup.S3
	made := fmt.Sprint(s3, s.Secrets[part.SecretS3KeyID], s.Secrets[part.SecretS3Secret])
	for _, m := range s.Members {
		made += " " + m.Name + " " + m.Address
	}
	if made == b.placed {
		return
	}
	for _, p := range b.places {
		if p, ok := p.(*peer); ok {
			p.close()
		}
	}
	b.places, b.placed, b.s3Err = nil, made, nil
	for _, m := range s.Members {
		if m.Name != s.Server {
			b.places = append(b.places, newPeer(m.Name, m.Address, b.cfg.Port, &b.source))
		}
	}
	if s3 == (site.S3{}) {
		return
	}
	bucket, err := newBucket(s3, s.Secrets[part.SecretS3KeyID], s.Secrets[part.SecretS3Secret])
	if err != nil {
		b.s3Err = err
		return
	}
	b.places = append(b.places, bucket)
}

// Check says why nothing can be backed up, or nil.
func (b *Backup) Check(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.state == nil:
		return errors.New("no state yet")
	case b.keyErr != nil && b.state.Quorum:
		return b.keyErr
	}
	return b.s3Err
}

// Run serves and works until ctx ends.
func (b *Backup) Run(ctx context.Context) error {
	if err := b.sweep(); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	serve := func(l net.Listener, h http.Handler) {
		srv := &http.Server{
			Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(b.log.Handler(), slog.LevelDebug),
			BaseContext: func(net.Listener) context.Context { return ctx },
		}
		stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
		wg.Go(func() {
			defer stop()
			if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
				fail(fmt.Errorf("serve copies: %w", err))
			}
		})
	}
	serve(tls.NewListener(b.cfg.Peer, mtls.Server(&b.source, part.Database)), b.shelf())
	serve(b.cfg.Control, b.routes())
	b.work(ctx, &wg)
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// shelf refuses until it is known whose folder it is.
func (b *Backup) shelf() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		f := b.folder
		b.mu.Unlock()
		if f.dir == "" {
			http.Error(w, "no state yet", http.StatusServiceUnavailable)
			return
		}
		shelf(f).ServeHTTP(w, r)
	})
}

// desynced lies in the folder tmp while a backup keeps the node desynchronised.
const desynced = "desynced"

// sweep removes what a process before this one left amid its work.
func (b *Backup) sweep() error {
	if _, err := os.Stat(filepath.Join(b.tmp(), desynced)); err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, _ = query(ctx, b.cfg.Socket, "SET GLOBAL wsrep_desync=OFF")
	}
	if err := os.RemoveAll(b.tmp()); err != nil {
		return fmt.Errorf("remove former work: %w", err)
	}
	if err := errors.Join(os.MkdirAll(b.tmp(), 0o700), os.MkdirAll(b.marks().dir, 0o700)); err != nil {
		return fmt.Errorf("make folder for work: %w", err)
	}
	folder{dir: b.cfg.Dir}.clean()
	return nil
}

const lookAround = 30 * time.Second // between two looks at what is due, if nothing changes

// work takes and lets go of the work, and does what is due, until ctx ends.
func (b *Backup) work(ctx context.Context, wg *sync.WaitGroup) {
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			b.endArchive()
			return
		case <-b.kick:
		case <-due.C:
		}
		next := b.step(ctx, wg)
		due.Reset(next)
	}
}

// step does one thing and returns when to look again.
func (b *Backup) step(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	b.clear(ctx)
	b.mu.Lock()
	s := b.state
	ready := s != nil && b.keyErr == nil
	shunned, busy := time.Now().Before(b.shun), b.cancel != nil
	b.mu.Unlock()
	if !ready {
		return pace.Next(lookAround)
	}
	if busy && !others(*s) {
		b.endBackup() // it keeps the only node from being the writer
	}
	mine := s.Backup.Holder == s.Server
	wanted := fit(*s, mine && b.forgiven(*s, busy)) && !shunned && s.Site.Database.Backup.Every > 0
	switch {
	case mine && !wanted, !mine && wanted && s.Backup.Holder == "" && s.Quorum:
		if _, err := b.cfg.Hold(ctx, wanted); err != nil && ctx.Err() == nil {
			b.log.Debug("take or leave the work of backups", "err", err)
		}
	}
	if mine && wanted {
		b.begin(ctx, wg, *s)
		b.perform(ctx, wg, *s)
	} else {
		b.endArchive()
	}
	return b.pause(*s, mine)
}

// clear removes what an interrupted restore left in the database.
func (b *Backup) clear(ctx context.Context) {
	names := b.marks().names()
	if len(names) == 0 || !b.take() {
		return
	}
	defer b.give()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for _, name := range names {
		if err := dropMarked(ctx, b.cfg.Socket, b.marks(), name); err != nil {
			b.log.Warn("clear up after a restore", "err", err)
			continue
		}
		b.log.Info("removed a half restored database", "name", name)
	}
}

// pause is shorter while something is to be expected.
func (b *Backup) pause(s part.State, mine bool) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.marks().names()) > 0 || s.Backup.Holder == "" || mine && (b.archive == nil || b.gap) {
		return pace.Next(2 * time.Second)
	}
	return pace.Next(lookAround)
}

// interruption is for how long the server that has the work may be out of sync.
const interruption = 5 * time.Second

// forgiven reports whether this server may be out of sync: for its own backup,
// or for a moment, as after one.
func (b *Backup) forgiven(s part.State, busy bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if busy || s.Self().Database.State == part.DatabaseSynced {
		b.synced = time.Now()
	}
	return time.Since(b.synced) < interruption
}

// fit reports whether this server may do the work: synced, or forgiven for not
// being so, and not the writer if another one is there.
func fit(s part.State, forgiven bool) bool {
	synced := func(m part.Member) bool { return m.Alive && m.Database.State == part.DatabaseSynced }
	self := s.Self()
	if !synced(self) && (!forgiven || self.Database.State != part.DatabaseJoining) {
		return false
	}
	if s.Database.Writer != s.Server {
		return true
	}
	for _, m := range s.Members {
		if m.Name != s.Server && synced(m) {
			return false
		}
	}
	return true
}

// begin notes since when this server has the work, and starts the archive.
func (b *Backup) begin(ctx context.Context, wg *sync.WaitGroup, s part.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.since.IsZero() {
		b.since = time.Now()
	}
	uuid, last := s.Database.UUID, s.Backup.Last
	if b.archive != nil && b.archive.chain == last.Log && b.archive.key.recipient == b.key.recipient {
		return
	}
	if b.stop != nil {
		b.stop()
		b.archive, b.stop = nil, nil
		return // the next look starts the new one
	}
	if last.Log == "" || last.UUID != uuid || b.gap {
		return // there is nothing yet that a log could lead on from
	}
	g, err := parseGTID(last.GTID)
	if err != nil {
		return
	}
	a := &archive{
		log: b.log, key: b.key, server: s.Server, chain: last.Log, data: b.cfg.Data, tmp: b.tmp(), places: b.places, base: g.seq,
		shipped: b.meters.shipped,
	}
	ctx, stop := context.WithCancel(ctx)
	b.archive, b.stop = a, stop
	wg.Go(func() { b.keepArchive(ctx, a) })
}

// keepArchive runs a until ctx ends, again and again.
func (b *Backup) keepArchive(ctx context.Context, a *archive) {
	err := a.run(ctx)
	stopped := ctx.Err() != nil
	b.mu.Lock()
	if b.archive == a {
		b.archive, b.stop = nil, nil
	}
	b.stuck = err
	var gap GapError
	if !stopped && (errors.As(err, &gap) || errors.Is(err, errRewritten)) {
		b.leave(err)
	}
	b.mu.Unlock()
	if !stopped {
		b.log.Warn("archive of the binary log", "err", err)
	}
}

// leave gives another server a chance whose log may go on from the archive's
// end; if this one gets the work again, a new backup is made. b.mu is held.
func (b *Backup) leave(gap error) {
	if b.shun.IsZero() || time.Since(b.shun) > 10*time.Minute {
		b.shun = time.Now().Add(15 * time.Second)
		return
	}
	b.log.Warn("no server's log goes on from the archive's end: making a new backup", "err", gap)
	b.gap = true
}

// endArchive stops the archive and a backup that runs by itself.
func (b *Backup) endArchive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = time.Time{}
	if b.stop != nil {
		b.stop()
		b.archive, b.stop = nil, nil
	}
	if b.cancel != nil {
		b.cancel()
	}
}

// endBackup stops a full backup.
func (b *Backup) endBackup() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel != nil {
		b.cancel()
	}
}

// perform starts what is due by the site's schedule.
func (b *Backup) perform(ctx context.Context, wg *sync.WaitGroup, s part.State) {
	b.mu.Lock()
	since, gap := b.since, b.gap
	b.mu.Unlock()
	what := due(s, since, gap, b.cfg.FirstAfter, time.Now())
	if what == "" || !b.take() {
		return
	}
	wg.Go(func() {
		defer b.give()
		say := func(Progress) {}
		if what == dueBackup {
			_, _ = b.backup(ctx, say) // it is logged and recorded
			return
		}
		_, _ = b.drill(ctx, say)
	})
}

// What may be due.
const (
	dueBackup = "backup"
	dueDrill  = "drill"
	retry     = 15 * time.Minute // after a failed backup
	drillWait = time.Hour        // after the first backup, and after a failed drill
)

// due says what is to be done at now by a server that has had the work since.
func due(s part.State, since time.Time, gap bool, first time.Duration, now time.Time) string {
	c, r := s.Site.Database.Backup, s.Backup
	failed := !r.Failed.At.IsZero() && r.Failed.At.After(r.Last.At) && now.Sub(r.Failed.At) < retry
	switch {
	case failed:
	case gap:
		return dueBackup
	case r.Last.At.IsZero() || r.Last.UUID != s.Database.UUID:
		if now.Sub(since) >= first {
			return dueBackup
		}
	case now.Sub(r.Last.At).Abs() >= c.Every.Std():
		return dueBackup
	}
	wait := min(c.Drill.Std(), drillWait)
	switch {
	case c.Drill == 0 || r.Last.At.IsZero() || r.Last.UUID != s.Database.UUID:
	case r.Drill.At.IsZero():
		if now.Sub(r.Last.At) >= wait {
			return dueDrill
		}
	case r.Drill.Error != "":
		if now.Sub(r.Drill.At) >= wait {
			return dueDrill
		}
	case now.Sub(r.Drill.At).Abs() >= c.Drill.Std():
		return dueDrill
	}
	return ""
}

// take reports whether no other task is under way, and begins one.
func (b *Backup) take() bool {
	select {
	case <-b.task:
		return true
	default:
		return false
	}
}

func (b *Backup) give() { b.task <- struct{}{} }

// situation is what a task works with.
type situation struct {
	state  part.State
	key    key
	places []store // others
	all    []store // with our own folder
}

func (b *Backup) situation() (situation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == nil {
		return situation{}, errors.New("no state yet")
	}
	if b.keyErr != nil {
		return situation{}, b.keyErr
	}
	return situation{*b.state, b.key, b.places, append([]store{b.folder}, b.places...)}, nil
}

// backup makes a full backup, records it, and removes what is no longer needed.
func (b *Backup) backup(ctx context.Context, say func(Progress)) (Outcome, error) {
	at, err := b.situation()
	if err != nil {
		return Outcome{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b.mu.Lock()
	b.cancel = cancel
	chain := ""
	if last := at.state.Backup.Last; !b.gap && last.UUID == at.state.Database.UUID {
		chain = last.Log
	}
	b.mu.Unlock()
	begun := time.Now()
	f := full{
		key: at.key, server: at.state.Server, uuid: at.state.Database.UUID, chain: chain, data: b.cfg.Data, socket: b.cfg.Socket, tmp: b.tmp(),
		places: at.places, desync: others(at.state), say: say,
	}
	m, lost, err := f.run(ctx)
	b.mu.Lock()
	b.cancel = nil
	b.mu.Unlock()
	r := at.state.Backup
	if err != nil {
		b.log.Warn("backup failed", "err", err)
		r.Failed = part.BackupNote{ID: m.ID, At: time.Now().UTC(), Error: err.Error()}
		return Outcome{}, errors.Join(err, b.record(ctx, func(now *part.BackupRole) { now.Failed = r.Failed }))
	}
	out := Outcome{Backup: m, Took: time.Since(begun)}
	for name, why := range lost {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s has no copy yet: %v", name, why))
	}
	b.log.Info("backup made", "id", m.ID, "gtid", m.GTID, "bytes", m.Size, "took", out.Took, "without", len(lost))
	note := part.BackupNote{ID: m.ID, At: m.At, UUID: m.UUID, Log: m.Log, GTID: m.GTID, Size: m.Size}
	err = b.record(ctx, func(now *part.BackupRole) {
		now.Last = note
		if now.Since.IsZero() {
			now.Since = note.At
		}
	})
	if err != nil {
		return out, err
	}
	b.mu.Lock()
	b.gap = false
	b.mu.Unlock()
	if n, err := tidy(ctx, at.all, at.key, b.tmp(), at.state.Site.Database.Backup.Keep, r.Verified.Backup, time.Now()); err != nil {
		b.log.Warn("remove old copies", "removed", n, "err", err)
	}
	return out, nil
}

// others reports whether another synced server is there, so that this one may lag.
func others(s part.State) bool {
	for _, m := range s.Members {
		if m.Name != s.Server && m.Alive && m.Database.State == part.DatabaseSynced {
			return true
		}
	}
	return false
}

// record changes what is agreed, whatever became of ctx.
func (b *Backup) record(ctx context.Context, change func(*part.BackupRole)) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	b.mu.Lock()
	r := b.state.Backup
	change(&r)
	s := *b.state
	s.Backup, b.done = r, r
	b.state = &s // until it comes back as a state
	b.mu.Unlock()
	r.Holder = ""
	if err := b.cfg.Record(ctx, r); err != nil {
		return fmt.Errorf("record what became of it: %w", err)
	}
	return nil
}

// newest is a with what own has newer: a state that is on its way may be older
// than what this server has just agreed on.
func newest(a, own part.BackupRole) part.BackupRole {
	if own.Last.At.After(a.Last.At) {
		a.Last, a.Since = own.Last, own.Since
	}
	if own.Failed.At.After(a.Failed.At) {
		a.Failed = own.Failed
	}
	if own.Drill.At.After(a.Drill.At) {
		a.Drill, a.Verified = own.Drill, own.Verified
	}
	return a
}

// drill rehearses a restore and records how it went.
func (b *Backup) drill(ctx context.Context, say func(Progress)) (part.BackupDrill, error) {
	at, err := b.situation()
	if err != nil {
		return part.BackupDrill{}, err
	}
	d := drill{
		rebuilder: b.rebuilder(at, say, func(string) {}), live: b.cfg.Socket,
		at: func() uint64 {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.archive == nil {
				return 0
			}
			return b.archive.at.Load()
		},
	}
	d.uuid = at.state.Database.UUID
	out := d.run(ctx)
	if ctx.Err() != nil {
		return out, context.Cause(ctx)
	}
	b.log.Info("rehearsed a restore", "backup", out.Backup, "gtid", out.GTID, "tables", out.Tables, "rows", out.Rows, "took", out.Took, "err", out.Error)
	err = b.record(ctx, func(r *part.BackupRole) {
		r.Drill = out
		if out.Error == "" {
			r.Verified = out
		}
	})
	if out.Error != "" {
		err = errors.Join(errors.New(out.Error), err)
	}
	return out, err
}

func (b *Backup) rebuilder(at situation, say func(Progress), warn func(string)) rebuilder {
	return rebuilder{key: at.key, places: at.all, tmp: b.tmp(), say: say, warn: warn}
}
