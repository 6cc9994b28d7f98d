package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// catalog is what lies where, as of one look at all places.
type catalog struct {
	places []store
	away   map[string]error // places that did not answer, by name
	held   map[string][]int // by object: which of places have it
	sizes  map[string]int64 // by object
}

// look lists all places at the same time.
func look(ctx context.Context, places []store, prefix string) catalog {
	c := catalog{places: places, away: map[string]error{}, held: map[string][]int{}, sizes: map[string]int64{}}
	lists, errs := make([][]entry, len(places)), make([]error, len(places))
	var wg sync.WaitGroup
	for i, s := range places {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, peerWait)
			defer cancel()
			lists[i], errs[i] = s.list(ctx, prefix)
		})
	}
	wg.Wait()
	for i, s := range places {
		if errs[i] != nil {
			c.away[s.name()] = errs[i]
		}
		for _, e := range lists[i] {
			c.held[e.Name] = append(c.held[e.Name], i)
			c.sizes[e.Name] = e.Size
		}
	}
	return c
}

// awayErr is nil if all places answered.
func (c catalog) awayErr() error {
	var errs []error
	for _, s := range c.places {
		if err := c.away[s.name()]; err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// ids are the backups that have a manifest somewhere, the oldest first.
func (c catalog) ids() []string {
	var out []string
	for name := range c.held {
		if id, ok := backupID(name); ok && name == manifestName(id) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// logs are the archive's pieces of one chain, in their order.
func (c catalog) logs(chain string) []logPiece {
	var out []logPiece
	for name := range c.held {
		if p, ok := parseLogName(name); ok && p.chain == chain {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b logPiece) int { return strings.Compare(a.name(), b.name()) })
	return out
}

// BadPieceError says that no place has a good copy of a piece that is needed.
type BadPieceError struct {
	Piece string // what it is, for the operator
	Name  string // of the object
	Why   []string
}

func (e BadPieceError) Error() string {
	if len(e.Why) == 0 {
		return fmt.Sprintf("%s is missing: no place has %s", e.Piece, e.Name)
	}
	return fmt.Sprintf("%s is unusable (%s): %s", e.Piece, e.Name, strings.Join(e.Why, "; "))
}

// fetch copies an object into a file of the folder tmp, from the first place
// whose copy check finds good, and tells warn of those that are not. The caller
// drops the file.
func (c catalog) fetch(ctx context.Context, what, name, tmp string, check func(io.Reader) error, warn func(string)) (*os.File, error) {
	bad := BadPieceError{Piece: what, Name: name}
	for _, i := range c.held[name] {
		f, err := fetchFrom(ctx, c.places[i], name, tmp, check)
		if err == nil {
			for _, why := range bad.Why {
				warn(what + ": " + why + "; another copy is good")
			}
			return f, nil
		}
		var wrong WrongKeyError
		if ctx.Err() != nil || errors.As(err, &wrong) {
			return nil, err
		}
		bad.Why = append(bad.Why, c.places[i].name()+": "+err.Error())
	}
	if err := c.awayErr(); err != nil && len(bad.Why) == 0 {
		bad.Why = append(bad.Why, "none of the places that answer has it, and these do not: "+err.Error())
	}
	return nil, bad
}

func fetchFrom(ctx context.Context, s store, name, tmp string, check func(io.Reader) error) (*os.File, error) {
	r, err := s.get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	f, err := os.CreateTemp(tmp, "get-")
	if err != nil {
		return nil, err
	}
	if _, err = io.Copy(f, io.LimitReader(r, objectLimit)); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		err = check(f)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		drop(f)
		return nil, err
	}
	return f, nil
}

// manifest reads a backup's, from whichever place has a good one.
func (c catalog) manifest(ctx context.Context, id, tmp string, k key) (Manifest, error) {
	var m Manifest
	f, err := c.fetch(ctx, "the manifest of backup "+id, manifestName(id), tmp, func(r io.Reader) error {
		data, err := io.ReadAll(io.LimitReader(r, 64<<20))
		if err == nil {
			m, err = decodeManifest(id, data, k)
		}
		return err
	}, func(string) {})
	if err != nil {
		return m, err
	}
	drop(f)
	return m, nil
}

// manifests reads all that can be read, the oldest first; the rest are errors by id.
func (c catalog) manifests(ctx context.Context, tmp string, k key) ([]Manifest, map[string]error) {
	var out []Manifest
	bad := map[string]error{}
	for _, id := range c.ids() {
		m, err := c.manifest(ctx, id, tmp, k)
		if err != nil {
			bad[id] = err
			continue
		}
		out = append(out, m)
	}
	slices.SortStableFunc(out, func(a, b Manifest) int { return a.At.Compare(b.At) })
	return out, bad
}

// Target is the moment to go back to. Exactly one of its fields counts; none: the newest.
type Target struct {
	Time   time.Time `json:"time,omitzero"`    // as the database stood at that instant
	To     string    `json:"to,omitempty"`     // GTID of the last transaction to have
	Before string    `json:"before,omitempty"` // GTID of the first one not to have
}

// String says it for the operator.
func (t Target) String() string {
	switch {
	case !t.Time.IsZero():
		return t.Time.Format("2006-01-02 15:04:05 MST")
	case t.To != "":
		return "transaction " + t.To
	case t.Before != "":
		return "the moment before transaction " + t.Before
	}
	return "the newest transaction"
}

// bound is a Target, read.
type bound struct {
	time int64  // commits at or after it are not wanted; 0: any are
	seq  uint64 // the last wanted; 0: any are
	only bool   // the transaction seq must be met
}

func (t Target) bound() (bound, error) {
	set := 0
	for _, is := range []bool{!t.Time.IsZero(), t.To != "", t.Before != ""} {
		if is {
			set++
		}
	}
	if set > 1 {
		return bound{}, errors.New("name one moment to go back to: a time or one transaction")
	}
	switch {
	case !t.Time.IsZero():
		b := bound{time: t.Time.Unix()}
		if t.Time.Nanosecond() > 0 {
			b.time++ // the log knows whole seconds
		}
		return b, nil
	case t.To != "":
		g, err := parseGTID(t.To)
		return bound{seq: g.seq, only: true}, err
	case t.Before != "":
		g, err := parseGTID(t.Before)
		if err == nil && g.seq == 0 {
			err = fmt.Errorf("nothing is before %s", t.Before)
		}
		return bound{seq: g.seq - 1}, err
	}
	return bound{}, nil
}

// past reports whether the transaction is beyond what is wanted.
func (b bound) past(g group) bool {
	return b.time > 0 && g.time >= b.time || b.seq > 0 && g.seq > b.seq
}

// choose returns the newest backup from which b can be reached.
func choose(all []Manifest, uuid string, b bound) (Manifest, error) {
	var best *Manifest
	for i, m := range all {
		g, err := parseGTID(m.GTID)
		if err != nil || uuid != "" && m.UUID != uuid {
			continue
		}
		if b.time > 0 && m.At.Unix() >= b.time || b.seq > 0 && g.seq > b.seq {
			continue
		}
		best = &all[i]
	}
	if best != nil {
		return *best, nil
	}
	if len(all) == 0 {
		return Manifest{}, errors.New("there is no backup")
	}
	return Manifest{}, fmt.Errorf("the oldest backup, %s, was made at %s (%s), after the moment to go back to",
		all[0].ID, all[0].At.Format(time.DateTime), all[0].GTID)
}

// chain returns the pieces of the log that lead from the transaction at to b,
// each beginning where one before it ends. Pieces may overlap: two servers may
// have archived the same for a moment. What is missing on the way is a GapError.
func chain(pieces []logPiece, at uint64, b bound) ([]logPiece, error) {
	var out []logPiece
	for {
		if b.seq > 0 && at >= b.seq {
			return out, nil
		}
		next := -1
		for i, p := range pieces {
			if p.prev <= at && at < p.last && (next < 0 || p.last > pieces[next].last) {
				next = i
			}
		}
		if next < 0 {
			break
		}
		at = pieces[next].last
		out = append(out, pieces[next])
		if b.time > 0 && pieces[next].to >= b.time {
			return out, nil // what is not wanted begins in it
		}
	}
	later := slices.IndexFunc(pieces, func(p logPiece) bool { return p.prev > at })
	switch {
	case at < b.seq, later >= 0:
		e := GapError{Where: "archive of the binary log", Missing: position(at + 1)}
		if later >= 0 {
			e.Next = position(pieces[later].prev + 1)
		}
		return nil, e
	}
	return out, nil
}
