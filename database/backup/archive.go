package backup

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"trivet/internal/pace"
)

const (
	archiveLook = time.Second             // how often the log is looked at
	archiveHold = 2500 * time.Millisecond // for how long transactions gather into a piece
	archiveMost = 4 << 20                 // bytes after which they do no longer
	archivePut  = 3 * time.Second         // for a place to take a piece; one that is slower gets it later
	mendPause   = 10 * time.Second        // between two attempts to give a place what it lacks
)

// archive copies this server's binary log, piece by piece, to all places. It
// begins where what they have ends, whichever server archived that.
type archive struct {
	log       *slog.Logger
	key       key
	server    string
	chain     string // of its pieces
	data, tmp string
	places    []store
	base      uint64        // the last transaction of a backup of the chain
	at        atomic.Uint64 // the last one that is in the archive
	oldest    atomic.Int64  // Unix milliseconds since when something waits; 0: nothing does
	shipped   func(bytes int64)

	tail  tail
	wait  stretch
	index time.Time // when the log's list of files was last changed
	ended bool      // the file has been read to its end, and a later one is known

	mu     sync.Mutex
	behind map[string]time.Time // places that lack something, and when to try again
}

// run archives until ctx ends or something is in the way. A GapError or
// errRewritten says that the log does not go on from the archive's end: if no
// server's does, a new backup begins another chain.
func (a *archive) run(ctx context.Context) error {
	a.behind = map[string]time.Time{}
	a.tail = tail{dir: a.data, base: "bin"}
	defer a.tail.close()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := a.begin(ctx); err != nil {
		return err
	}
	wg.Go(func() { a.mendAll(ctx) })
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-due.C:
		}
		if err := a.step(ctx); err != nil {
			return err
		}
		due.Reset(pace.Next(archiveLook))
	}
}

// begin finds where to go on.
func (a *archive) begin(ctx context.Context) error {
	c := look(ctx, a.places, logPrefix+a.chain+"/")
	if len(c.away) == len(a.places) {
		return fmt.Errorf("look for the archive's end: %w", c.awayErr())
	}
	for name := range c.away {
		a.lacks(name)
	}
	at := a.base
	if logs := c.logs(a.chain); len(logs) > 0 {
		newest := slices.MaxFunc(logs, func(p, q logPiece) int { return cmp.Compare(p.last, q.last) })
		at = newest.last
		mark, err := c.mark(ctx, newest, a.tmp, a.key)
		if err != nil {
			return fmt.Errorf("look for the archive's end: %w", err)
		}
		a.tail.mark = mark
	}
	if err := a.tail.seek(at); err != nil {
		return err
	}
	a.at.Store(at)
	a.log.Info("archiving binary log", "after", position(at), "file", a.tail.name)
	return nil
}

// mark reads what the last transaction of a piece did.
func (c catalog) mark(ctx context.Context, p logPiece, tmp string, k key) (uint64, error) {
	var h logHead
	f, err := c.fetch(ctx, p.String(), p.name(), tmp, func(r io.Reader) (err error) {
		h, err = readLogHead(bufio.NewReader(r), p, k)
		return err
	}, func(string) {})
	if err != nil {
		return 0, err
	}
	drop(f)
	return h.Mark, nil
}

// step reads what is new and ships what has waited long enough.
func (a *archive) step(ctx context.Context) error {
	for ctx.Err() == nil {
		more, err := a.gather()
		if err != nil {
			return err
		}
		if a.wait.groups > 0 && (more || a.ended || time.Since(a.wait.begun) >= archiveHold) {
			if err := a.ship(ctx); err != nil {
				return err
			}
		}
		if more {
			continue
		}
		if next, err := a.advance(); err != nil || !next {
			return err
		}
	}
	return nil
}

// gather adds to what waits; more says that it is enough for a piece.
func (a *archive) gather() (more bool, err error) {
	err = a.tail.scan(func(g group) bool {
		w := &a.wait
		if w.groups > 0 && w.to-w.from >= archiveMost {
			more = true
			return false
		}
		if w.groups == 0 {
			*w = stretch{piece: logPiece{chain: a.chain, prev: a.at.Load(), from: g.time}, from: g.from, begun: time.Now()}
			a.oldest.Store(w.begun.UnixMilli())
		}
		w.groups++
		w.to, w.mark, w.piece.last, w.piece.to = g.to, g.sum, g.seq, max(w.piece.to, g.time)
		return true
	})
	return more, err
}

// advance goes on to the log's next file, if there is one and nothing waits.
func (a *archive) advance() (bool, error) {
	info, err := os.Stat(a.tail.dir + "/" + a.tail.base + ".index")
	if err != nil {
		return false, err
	}
	if info.ModTime().Equal(a.index) && !a.ended {
		return false, nil
	}
	if !a.ended {
		// What was written before the list changed is read before the file is left.
		a.index, a.ended = info.ModTime(), true
		return true, nil
	}
	if a.wait.groups > 0 {
		return false, nil
	}
	a.ended = false
	return a.tail.advance()
}

// ship seals what waits and puts it into all places that lack nothing.
func (a *archive) ship(ctx context.Context) error {
	o, f, err := a.wait.seal(a.key, a.server, a.tmp, a.tail.dec.format, a.tail.file)
	if err != nil {
		return err
	}
	defer drop(f)
	if err := a.put(ctx, o); err != nil {
		return fmt.Errorf("archive %v: %w", a.wait.piece, err)
	}
	a.at.Store(a.wait.piece.last)
	a.wait = stretch{}
	a.oldest.Store(0)
	if a.shipped != nil {
		a.shipped(o.size)
	}
	return nil
}

// put succeeds if one place has the piece; the others get it later.
func (a *archive) put(ctx context.Context, o object) error {
	errs := make([]error, len(a.places))
	var wg sync.WaitGroup
	for i, s := range a.places {
		if a.isBehind(s.name()) {
			errs[i] = fmt.Errorf("%s lacks earlier pieces", s.name())
			continue
		}
		wg.Go(func() { errs[i] = putOnce(ctx, s, o, archivePut) })
	}
	wg.Wait()
	kept := false
	for i, s := range a.places {
		if errs[i] == nil {
			kept = true
		} else if !a.isBehind(s.name()) && ctx.Err() == nil {
			a.log.Warn("archive piece not taken", "by", s.name(), "err", errs[i])
			a.lacks(s.name())
		}
	}
	if kept {
		return nil
	}
	// Nobody has it: then it is no matter of who is behind.
	a.forgive()
	return errors.Join(errs...)
}

func (a *archive) isBehind(place string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, is := a.behind[place]
	return is
}

func (a *archive) lacks(place string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.behind[place] = time.Now().Add(mendPause)
}

func (a *archive) forgive() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.behind)
}

// due is a place that lacks something and may be tried again; nil: none.
func (a *archive) due() store {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.places {
		if at, is := a.behind[s.name()]; is && time.Now().After(at) {
			return s
		}
	}
	return nil
}

// mendAll gives places that were away what they lack, until ctx ends.
func (a *archive) mendAll(ctx context.Context) {
	due := time.NewTimer(pace.Next(mendPause / 2))
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		}
		if s := a.due(); s != nil {
			a.mendOne(ctx, s)
		}
		due.Reset(pace.Next(mendPause / 2))
	}
}

// mendOne counts a place among the others again once it lacks nothing.
func (a *archive) mendOne(ctx context.Context, s store) {
	n, err := mend(ctx, a.places, s, a.tmp)
	switch {
	case err != nil:
		a.log.Debug("give a place what it lacks", "place", s.name(), "err", err)
		a.lacks(s.name())
	case n == 0:
		a.mu.Lock()
		delete(a.behind, s.name())
		a.mu.Unlock()
		a.log.Info("place of copies lacks nothing any more", "place", s.name())
	default:
		a.mu.Lock()
		a.behind[s.name()] = time.Now() // and look once more, for what was shipped meanwhile
		a.mu.Unlock()
	}
}

// mend copies to one place what it lacks of what the others have, manifests
// last. It returns how many objects that were.
func mend(ctx context.Context, places []store, to store, tmp string) (int, error) {
	c := look(ctx, places, "")
	if err := c.away[to.name()]; err != nil {
		return 0, err
	}
	complete := map[string]bool{}
	for _, id := range c.ids() {
		complete[id] = true
	}
	n := 0
	for _, manifests := range []bool{false, true} {
		for name := range c.held {
			id, full := backupID(name)
			if full && (!complete[id] || (name == manifestName(id)) != manifests) || !full && manifests || c.has(name, to) {
				continue
			}
			if err := c.copyTo(ctx, name, to, tmp); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

func (c catalog) has(name string, at store) bool {
	for _, i := range c.held[name] {
		if c.places[i].name() == at.name() {
			return true
		}
	}
	return false
}

// copyTo copies one object as it is: who restores checks it.
func (c catalog) copyTo(ctx context.Context, name string, to store, tmp string) error {
	f, err := c.fetch(ctx, "copy", name, tmp, func(io.Reader) error { return nil }, func(string) {})
	if err != nil {
		return err
	}
	defer drop(f)
	o, err := fileObject(name, f)
	if err != nil {
		return err
	}
	return putOnce(ctx, to, o, putLimit)
}
