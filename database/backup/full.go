package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	pieceSize = 8 << 20 // bytes of a full backup's pieces
	putLimit  = 2 * time.Minute
	putTries  = 3
)

// full makes one full backup of this server's database.
type full struct {
	key          key
	server, uuid string
	chain        string // of the log that leads on from it; empty: it begins one
	data, socket string
	tmp          string
	places       []store // all get a copy
	desync       bool    // the node may lag behind its group meanwhile
	say          func(Progress)
}

// outlet is a place that still gets the pieces.
type outlet struct {
	store
	err error // why it gets no more
}

// run makes the backup. It succeeds if one place has all of it; what became of
// the others is in the second answer, by name.
func (f full) run(ctx context.Context) (m Manifest, lost map[string]error, err error) {
	outlets, err := f.outlets(ctx)
	if err != nil {
		return m, nil, err
	}
	m = Manifest{ID: time.Now().UTC().Format(idTime) + "-" + f.server, Server: f.server, UUID: f.uuid}
	m.Log = cmp.Or(f.chain, chainOf(f.uuid, m.ID))
	c := &chopper{ctx: ctx, id: m.ID, outlets: outlets}
	err = f.stream(ctx, &m, c)
	if err == nil {
		m.Pieces, m.Size = c.pieces, c.size
		err = f.finish(ctx, &m, c)
	}
	lost = map[string]error{}
	for _, o := range outlets {
		if o.err != nil {
			lost[o.name()] = o.err
		}
	}
	if err != nil {
		f.discard(ctx, m.ID, outlets)
		return m, lost, fmt.Errorf("make backup: %w", err)
	}
	return m, lost, nil
}

// outlets are the places that have room.
func (f full) outlets(ctx context.Context) ([]*outlet, error) {
	need := folderSize(f.data) / 2 // compressed, to a third as a rule
	var out []*outlet
	var errs []error
	for _, s := range f.places {
		o := &outlet{store: s}
		if p, ok := s.(*peer); ok {
			o.err = p.room(ctx, need)
		}
		if o.err != nil {
			errs = append(errs, o.err)
		}
		out = append(out, o)
	}
	if len(errs) == len(out) {
		return nil, fmt.Errorf("make backup: no place can take it: %w", errors.Join(errs...))
	}
	return out, nil
}

// stream runs mariadb-backup and seals what it reads into c.
func (f full) stream(ctx context.Context, m *Manifest, c *chopper) error {
	tmp, err := os.MkdirTemp(f.tmp, "full-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if f.desync {
		if err := os.WriteFile(filepath.Join(f.tmp, desynced), nil, 0o600); err != nil {
			return err
		}
		if _, err := query(ctx, f.socket, "SET GLOBAL wsrep_desync=ON"); err != nil {
			return err
		}
		defer f.resync(ctx)
	}
	w, err := f.key.seal(c)
	if err != nil {
		return err
	}
	cmd := program(ctx, "mariadb-backup", "--no-defaults", "--backup", "--user=mysql", "--socket="+f.socket, "--datadir="+f.data,
		"--galera-info", "--stream=mbstream", "--target-dir="+tmp, "--extra-lsndir="+tmp, "--tmpdir="+tmp, "--databases-exclude=lost+found")
	raw := &meter{w: w, total: folderSize(f.data), say: f.say, what: "copying"}
	cmd.Stdout = raw
	if err := errors.Join(run(cmd, "mariadb-backup"), c.err); err != nil {
		return err
	}
	if err := errors.Join(w.Close(), c.flush()); err != nil {
		return err
	}
	m.Raw = raw.done
	return m.read(tmp)
}

// resync ends the desynchronisation, whatever became of ctx.
func (f full) resync(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, err := query(ctx, f.socket, "SET GLOBAL wsrep_desync=OFF"); err == nil {
		_ = os.Remove(filepath.Join(f.tmp, desynced))
	}
}

var (
	infoGTID    = regexp.MustCompile(`GTID of the last change '([^']*)'`)
	infoVersion = regexp.MustCompile(`(?m)^server_version = (.*)$`)
	infoLocked  = regexp.MustCompile(`(?m)^end_time = (.*)$`)
)

// read takes what mariadb-backup wrote about the backup.
func (m *Manifest) read(dir string) error {
	var info []byte
	for _, name := range []string{"xtrabackup_info", "mariadb_backup_info"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			info = data
		}
	}
	at := infoGTID.FindSubmatch(info)
	if at == nil {
		return errors.New("mariadb-backup did not say at which transaction the copy is")
	}
	g, err := parseGTID(string(at[1]))
	if err != nil {
		return fmt.Errorf("read the copy's position: %w", err)
	}
	m.GTID = g.String()
	m.At = time.Now().UTC().Truncate(time.Second)
	if v := infoVersion.FindSubmatch(info); v != nil {
		m.MariaDB = string(v[1])
	}
	if v := infoLocked.FindSubmatch(info); v != nil {
		if t, err := time.ParseInLocation(time.DateTime, string(v[1]), time.Local); err == nil {
			m.At = t.UTC()
		}
	}
	return nil
}

// finish puts the manifest, without which there is no backup, where all pieces are.
func (f full) finish(ctx context.Context, m *Manifest, c *chopper) error {
	data, err := m.encode(f.key)
	if err != nil {
		return err
	}
	return c.send(bytesObject(manifestName(m.ID), data))
}

// discard removes what there is of a backup that was not finished.
func (f full) discard(ctx context.Context, id string, outlets []*outlet) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), peerWait)
	defer cancel()
	for _, o := range outlets {
		list, err := o.list(ctx, fullPrefix+id+"/")
		if err != nil {
			continue // the next tidying does it
		}
		for _, e := range list {
			_ = o.remove(ctx, e.Name)
		}
	}
}

// chopper cuts what is written to it into pieces and puts each into all places.
type chopper struct {
	ctx     context.Context //nolint:containedctx // an io.Writer has no other way to end
	id      string
	outlets []*outlet
	buf     []byte
	pieces  []Piece
	size    int64
	err     error
}

func (c *chopper) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if c.err != nil {
			return n, c.err
		}
		if c.buf == nil {
			c.buf = make([]byte, 0, pieceSize)
		}
		k := min(len(p)-n, pieceSize-len(c.buf))
		c.buf = append(c.buf, p[n:n+k]...)
		n += k
		if len(c.buf) == pieceSize {
			c.err = c.flush()
		}
	}
	return n, c.err
}

// flush sends the piece that has gathered.
func (c *chopper) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	o := bytesObject(pieceName(c.id, len(c.pieces)), c.buf)
	if err := c.send(o); err != nil {
		return err
	}
	c.pieces = append(c.pieces, Piece{o.size, o.sha256})
	c.size += o.size
	c.buf = c.buf[:0]
	return nil
}

// send puts o into all places that have had everything so far. It fails when there is none left.
func (c *chopper) send(o object) error {
	var wg sync.WaitGroup
	for _, to := range c.outlets {
		if to.err == nil {
			wg.Go(func() { to.err = putAgain(c.ctx, to.store, o) })
		}
	}
	wg.Wait()
	var errs []error
	for _, to := range c.outlets {
		if to.err == nil {
			return nil
		}
		errs = append(errs, to.err)
	}
	return fmt.Errorf("no place takes it: %w", errors.Join(errs...))
}

// putAgain tries more than once.
func putAgain(ctx context.Context, s store, o object) error {
	var err error
	for range putTries {
		if err = putOnce(ctx, s, o, putLimit); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("%s: %w", s.name(), err)
}

func putOnce(ctx context.Context, s store, o object, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return s.put(ctx, o)
}

// meter counts what passes through it to w.
type meter struct {
	w     io.Writer
	what  string
	done  int64
	total int64
	told  time.Time
	say   func(Progress)
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.w.Write(p)
	m.done += int64(n)
	if now := time.Now(); now.Sub(m.told) >= 500*time.Millisecond {
		m.told = now
		m.say(Progress{Step: m.what, Done: m.done, Total: max(m.total, m.done)})
	}
	return n, err
}

// folderSize is what mariadb-backup will read of a data folder, about.
func folderSize(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // a table that was just dropped
		}
		name := d.Name()
		if strings.HasPrefix(name, "bin.0") || strings.HasPrefix(name, "ib_logfile") || strings.HasPrefix(name, "galera.cache") || strings.HasPrefix(name, "gcache.page") {
			return nil
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

// Progress is how far a task is.
type Progress struct {
	Step  string `json:"step"`
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"` // 0: not known
}
