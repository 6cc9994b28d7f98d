package backup

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

func unbase64(s string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(s, `\n`, ""))
	return string(b), err
}

// rebuilder brings a moment of the past back in a scratch mariadbd.
type rebuilder struct {
	key    key
	places []store
	tmp    string
	uuid   string // of the history wanted; empty: whichever
	say    func(Progress)
	warn   func(string)
}

// Rebuilt is what a scratch mariadbd holds.
type Rebuilt struct {
	Backup string `json:"backup"`  // id of the full backup
	GTID   string `json:"gtid"`    // of the last transaction
	Logs   int    `json:"logs"`    // pieces of the log that were applied
	Groups int    `json:"applied"` // transactions out of them
}

// rebuild returns a running scratch mariadbd, which the caller removes.
func (r rebuilder) rebuild(ctx context.Context, t Target) (*scratch, Rebuilt, error) {
	b, err := t.bound()
	if err != nil {
		return nil, Rebuilt{}, err
	}
	c := look(ctx, r.places, "")
	if len(c.away) == len(c.places) {
		return nil, Rebuilt{}, fmt.Errorf("look for backups: %w", c.awayErr())
	}
	m, pieces, err := r.plan(ctx, c, b)
	if err != nil {
		return nil, Rebuilt{}, err
	}
	s, err := newScratch(r.tmp)
	if err != nil {
		return nil, Rebuilt{}, err
	}
	done := Rebuilt{Backup: m.ID, GTID: m.GTID, Logs: len(pieces)}
	err = r.fill(ctx, s, c, m)
	if err == nil {
		err = s.start(ctx)
	}
	if err == nil {
		err = r.apply(ctx, s, c, m, pieces, b, &done)
	}
	if err != nil {
		s.remove()
		return nil, done, err
	}
	return s, done, nil
}

// plan chooses the backup and the pieces of the log.
func (r rebuilder) plan(ctx context.Context, c catalog, b bound) (Manifest, []logPiece, error) {
	all, bad := c.manifests(ctx, r.tmp, r.key)
	m, err := choose(all, r.uuid, b)
	if err != nil {
		for _, why := range bad {
			err = errors.Join(err, why)
		}
		return m, nil, err
	}
	for _, why := range bad {
		r.warn(why.Error())
	}
	g, err := parseGTID(m.GTID)
	if err != nil {
		return m, nil, err
	}
	pieces, err := chain(c.logs(m.Log), g.seq, b)
	return m, pieces, err
}

// fill unpacks the full backup, each piece checked before it is used.
func (r rebuilder) fill(ctx context.Context, s *scratch, c catalog, m Manifest) error {
	if err := (folder{"this server", r.tmp}).room(2 * m.Raw); err != nil {
		return err
	}
	in := &joined{ctx: ctx, r: r, c: c, m: m}
	defer in.close()
	plain, err := r.key.open(in)
	if in.err != nil {
		return in.err
	}
	if err != nil {
		return fmt.Errorf("open backup %s: %w", m.ID, err)
	}
	defer func() { _ = plain.Close() }()
	err = s.unpack(ctx, plain)
	if in.err != nil {
		return in.err
	}
	if err != nil {
		return fmt.Errorf("unpack backup %s: %w", m.ID, err)
	}
	if in.n != len(m.Pieces) {
		return fmt.Errorf("unpack backup %s: it ended before its last piece", m.ID)
	}
	return nil
}

// joined reads a backup's pieces as one stream.
type joined struct {
	ctx  context.Context //nolint:containedctx // an io.Reader has no other way to end
	r    rebuilder
	c    catalog
	m    Manifest
	n    int // pieces begun
	file *os.File
	done int64
	err  error
}

func (j *joined) Read(p []byte) (int, error) {
	for {
		if j.file != nil {
			n, err := j.file.Read(p)
			if n > 0 || err != io.EOF {
				return n, err
			}
			j.close()
		}
		if j.n == len(j.m.Pieces) {
			return 0, io.EOF
		}
		if j.err = j.next(); j.err != nil {
			return 0, j.err
		}
	}
}

func (j *joined) next() error {
	piece := j.m.Pieces[j.n]
	name := pieceName(j.m.ID, j.n)
	what := fmt.Sprintf("piece %d of %d of backup %s", j.n+1, len(j.m.Pieces), j.m.ID)
	var err error
	j.file, err = j.c.fetch(j.ctx, what, name, j.r.tmp, func(in io.Reader) error {
		return copyChecked(io.Discard, in, object{name: "it", size: piece.Size, sha256: piece.SHA256})
	}, j.r.warn)
	j.n++
	j.done += piece.Size
	j.r.say(Progress{Step: "unpacking backup " + j.m.ID, Done: j.done, Total: j.m.Size})
	return err
}

func (j *joined) close() {
	if j.file != nil {
		drop(j.file)
		j.file = nil
	}
}

// apply runs the log on from the backup's position up to b.
func (r rebuilder) apply(ctx context.Context, s *scratch, c catalog, m Manifest, pieces []logPiece, b bound, done *Rebuilt) error {
	g, err := parseGTID(m.GTID)
	if err != nil {
		return err
	}
	a := &applier{s: s, at: g.seq, bound: b}
	for i, p := range pieces {
		r.say(Progress{Step: "applying the binary log", Done: int64(i), Total: int64(len(pieces))})
		err := r.applyPiece(ctx, c, p, a)
		if err != nil {
			a.abort()
			return err
		}
		if a.past {
			break
		}
	}
	if err := a.finish(); err != nil {
		return err
	}
	done.GTID, done.Groups = position(a.at), a.groups
	if b.only && a.at != b.seq {
		return fmt.Errorf("there is no transaction %s: the last one before it is %s", position(b.seq), position(a.at))
	}
	return nil
}

func (r rebuilder) applyPiece(ctx context.Context, c catalog, p logPiece, a *applier) error {
	f, err := c.fetch(ctx, p.String(), p.name(), r.tmp, func(in io.Reader) error { return checkLog(in, p, r.key) }, r.warn)
	if err != nil {
		return err
	}
	defer drop(f)
	plain, err := openLog(f, p, r.key)
	if err != nil {
		return fmt.Errorf("open %v: %w", p, err)
	}
	defer func() { _ = plain.Close() }()
	if err := a.take(ctx, io.MultiReader(strings.NewReader(string(magic)), plain)); err != nil {
		return fmt.Errorf("apply %v: %w", p, err)
	}
	if !a.past && a.at != p.last {
		return fmt.Errorf("apply %v: it ends with %s", p, position(a.at))
	}
	return nil
}

// applier feeds transactions to a scratch mariadbd, each once and in order.
type applier struct {
	s      *scratch
	player *player
	at     uint64 // the last applied
	groups int
	bound  bound
	past   bool // a transaction came that is not wanted
}

// take reads one piece: a binary log without a list.
func (a *applier) take(ctx context.Context, r io.Reader) error {
	d := newReader(r)
	if err := d.start(); err != nil {
		return err
	}
	if a.player != nil && a.player.head != formatOf(d.format) {
		if err := a.finish(); err != nil {
			return err
		}
	}
	if a.player == nil {
		var err error
		if a.player, err = a.s.play(ctx, d.format); err != nil {
			return err
		}
	}
	return a.feed(d)
}

func (a *applier) feed(d *reader) error {
	wanted := false
	for {
		e, err := d.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if e.kind() == eventGTID {
			g, _, err := e.gtid()
			if err != nil {
				return err
			}
			wanted = g.domain == Domain && g.seq > a.at
			if wanted && a.bound.past(group{gtid: g, time: e.time()}) {
				a.past = true
				return nil
			}
			if wanted {
				a.at = g.seq
				a.groups++
			}
		}
		if !wanted || !e.within() && e.kind() != eventGTID {
			continue
		}
		if _, err := a.player.in.Write(e.raw); err != nil {
			return cmp.Or(a.finish(), err) // what the player says is the cause
		}
	}
}

// finish waits until all that was fed has been applied.
func (a *applier) finish() error {
	if a.player == nil {
		return nil
	}
	err := a.player.close()
	a.player = nil
	return err
}

// abort ends the player amid what it does.
func (a *applier) abort() {
	if a.player != nil {
		_ = a.player.in.CloseWithError(errors.New("given up"))
		<-a.player.end //nolint:errcheck // why it was given up is known
		a.player = nil
	}
}
