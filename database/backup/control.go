package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"trivet/internal/part"
)

// Outcome is what became of a task. Fields that do not belong to it are zero.
type Outcome struct {
	Backup   Manifest         `json:"backup,omitzero"`
	Rebuilt  Rebuilt          `json:"rebuilt,omitzero"`
	Loaded   Loaded           `json:"loaded,omitzero"`
	Drill    part.BackupDrill `json:"drill,omitzero"`
	Took     time.Duration    `json:"took,omitempty"` // nanoseconds
	Warnings []string         `json:"warnings,omitempty"`
}

// Message is one line of a task's answer: progress again and again, then one
// outcome or error.
type Message struct {
	Progress *Progress `json:"progress,omitempty"`
	Outcome  *Outcome  `json:"outcome,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// Order is what a restore is to do.
type Order struct {
	Target
	As      string `json:"as,omitempty"`      // name of the new database
	Replace string `json:"replace,omitempty"` // the app's own database, by its name: its tables instead
	Key     string `json:"key,omitempty"`     // an older key than the site's
}

// Listing is what there is to restore from.
type Listing struct {
	Server  string            `json:"server"` // that says so
	Role    part.BackupRole   `json:"role"`
	Key     string            `json:"key"` // the public half of the present one
	Backups []Listed          `json:"backups"`
	Archive Archived          `json:"archive"`
	Away    map[string]string `json:"away,omitempty"` // places that do not answer, and why
}

// Listed is one full backup.
type Listed struct {
	ID       string    `json:"id"`
	At       time.Time `json:"at,omitzero"`
	Server   string    `json:"server,omitempty"`
	UUID     string    `json:"uuid,omitempty"`
	GTID     string    `json:"gtid,omitempty"`
	Size     int64     `json:"size,omitempty"`
	Pieces   int       `json:"pieces,omitempty"`
	Copies   []string  `json:"copies"`            // places that have all of it
	Partial  []string  `json:"partial,omitempty"` // places that lack pieces of it
	Problem  string    `json:"problem,omitempty"` // why it cannot be used
	Verified time.Time `json:"verified,omitzero"` // when a restore of it was rehearsed
}

// Archived is the archive of the binary log, of the present history.
type Archived struct {
	Pieces int       `json:"pieces"`
	Size   int64     `json:"size"`
	From   time.Time `json:"from,omitzero"` // earliest moment that can be gone back to
	To     time.Time `json:"to,omitzero"`   // of the last transaction
	GTID   string    `json:"gtid,omitempty"`
	Gap    string    `json:"gap,omitempty"`    // what is missing after the newest backup
	Stuck  string    `json:"stuck,omitempty"`  // why it does not go on, said by the server that archives
	Behind float64   `json:"behind,omitempty"` // seconds that the oldest transaction outside it has waited
}

// routes are what node asks for, on a socket that only it can connect to.
func (b *Backup) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/backup/list", func(w http.ResponseWriter, r *http.Request) {
		l, err := b.listing(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(l)
	})
	mux.HandleFunc("POST /v1/backup/now", b.run(func(ctx context.Context, _ Order, say func(Progress)) (Outcome, error) {
		return b.backup(ctx, say)
	}))
	mux.HandleFunc("POST /v1/backup/drill", b.run(func(ctx context.Context, _ Order, say func(Progress)) (Outcome, error) {
		d, err := b.drill(ctx, say)
		return Outcome{Drill: d, Took: d.Took}, err
	}))
	mux.HandleFunc("POST /v1/backup/restore", b.run(b.restore))
	return mux
}

// run makes an HTTP answer of a task: lines of JSON. The task ends with the request.
func (b *Backup) run(task func(context.Context, Order, func(Progress)) (Outcome, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var o Order
		if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&o); err != nil && !errors.Is(err, io.EOF) {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var mu sync.Mutex
		tell := func(m Message) {
			mu.Lock()
			defer mu.Unlock()
			_ = json.NewEncoder(w).Encode(m)
			_ = http.NewResponseController(w).Flush()
		}
		if !b.take() {
			tell(Message{Error: "another backup, restore or drill is under way on this server"})
			return
		}
		defer b.give()
		out, err := task(r.Context(), o, func(p Progress) { tell(Message{Progress: &p}) })
		if err != nil {
			tell(Message{Error: err.Error()})
			return
		}
		tell(Message{Outcome: &out})
	}
}

// restore brings a moment back into the running cluster.
func (b *Backup) restore(ctx context.Context, o Order, say func(Progress)) (Outcome, error) {
	begun := time.Now()
	at, err := b.situation()
	if err != nil {
		return Outcome{}, err
	}
	if o.Key != "" {
		if at.key, err = parseKey(o.Key); err != nil {
			return Outcome{}, err
		}
	}
	app := at.state.Site.Database.Name
	if o.Replace != "" && o.Replace != app {
		return Outcome{}, fmt.Errorf("only the app's own database can be replaced: %s, not %q", app, o.Replace)
	}
	name := o.As
	if name == "" {
		name = shorten(app, "_"+begun.UTC().Format("20060102_150405"))
	}
	if !databaseForm.MatchString(name) {
		return Outcome{}, fmt.Errorf("%q is no name of a database (lower-case letters, digits and underscores, a letter first)", name)
	}
	out := Outcome{}
	if err := b.archivedNow(ctx, o.Target, say); err != nil {
		out.Warnings = append(out.Warnings, err.Error())
	}
	s, rebuilt, err := b.rebuilder(at, say, func(w string) { out.Warnings = append(out.Warnings, w) }).rebuild(ctx, o.Target)
	if err != nil {
		return out, fmt.Errorf("restore %v: %w", o.Target, err)
	}
	defer s.remove()
	l := loader{from: s.socket(), to: b.cfg.Socket, marks: b.marks(), say: say, warn: func(w string) { out.Warnings = append(out.Warnings, w) }}
	out.Rebuilt = rebuilt
	if o.Replace != "" {
		out.Loaded, err = l.replace(ctx, app, begun)
	} else {
		out.Loaded, err = l.beside(ctx, app, name)
	}
	if err != nil {
		return out, fmt.Errorf("restore %v: %w", o.Target, err)
	}
	out.Took = time.Since(begun)
	b.log.Info("restored", "to", o.String(), "backup", rebuilt.Backup, "gtid", rebuilt.GTID, "database", out.Loaded.Database, "rows", out.Loaded.Rows, "took", out.Took)
	return out, nil
}

// archivedNow waits until what this server holds now is in the archive, so that
// a moment of the last seconds is not restored without its last transactions.
func (b *Backup) archivedNow(ctx context.Context, t Target, say func(Progress)) error {
	at, err := value(ctx, b.cfg.Socket, "SELECT @@gtid_binlog_pos")
	if err != nil {
		return fmt.Errorf("what the cluster holds now is not known: %w", err)
	}
	now, err := parseGTID(at)
	if err != nil {
		return nil // nothing was ever written
	}
	b.mu.Lock()
	a := b.archive
	b.mu.Unlock()
	if a == nil {
		return errors.New("this server does not archive the binary log now: transactions of the last seconds may be missing")
	}
	say(Progress{Step: "waiting for the archive of the binary log"})
	d := drill{at: a.at.Load}
	return d.archived(ctx, now.seq)
}

// listing looks at all places.
func (b *Backup) listing(ctx context.Context) (Listing, error) {
	at, err := b.situation()
	if err != nil {
		return Listing{}, err
	}
	c := look(ctx, at.all, "")
	l := Listing{Server: at.state.Server, Role: at.state.Backup, Key: at.key.recipient, Backups: []Listed{}, Away: map[string]string{}}
	for name, err := range c.away {
		l.Away[name] = err.Error()
	}
	all, bad := c.manifests(ctx, b.tmp(), at.key)
	for _, m := range all {
		l.Backups = append(l.Backups, listed(c, m, at.state.Backup))
	}
	for id, err := range bad {
		l.Backups = append(l.Backups, Listed{ID: id, Copies: []string{}, Problem: err.Error()})
	}
	slices.SortFunc(l.Backups, func(a, b Listed) int { return a.At.Compare(b.At) })
	l.Archive = archived(c, all, at.state.Database.UUID)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stuck != nil && b.archive == nil {
		l.Archive.Stuck = b.stuck.Error()
	}
	if b.archive != nil {
		if ms := b.archive.oldest.Load(); ms > 0 {
			l.Archive.Behind = time.Since(time.UnixMilli(ms)).Seconds()
		}
	}
	return l, nil
}

func listed(c catalog, m Manifest, r part.BackupRole) Listed {
	out := Listed{ID: m.ID, At: m.At, Server: m.Server, UUID: m.UUID, GTID: m.GTID, Size: m.Size, Pieces: len(m.Pieces), Copies: []string{}}
	if r.Verified.Backup == m.ID {
		out.Verified = r.Verified.At
	}
	for i, s := range c.places {
		have := 0
		for n, p := range m.Pieces {
			if name := pieceName(m.ID, n); slices.Contains(c.held[name], i) && c.sizes[name] == p.Size {
				have++
			}
		}
		whole := have == len(m.Pieces) && c.has(manifestName(m.ID), s)
		switch {
		case whole:
			out.Copies = append(out.Copies, s.name())
		case have > 0:
			out.Partial = append(out.Partial, s.name())
		}
	}
	return out
}

// archived sums up the archive of one history.
func archived(c catalog, all []Manifest, uuid string) Archived {
	var out Archived
	first, newest := -1, -1
	for i, m := range all {
		if m.UUID != uuid {
			continue
		}
		if first < 0 || all[first].Log != m.Log {
			first = i // what is before another chain cannot be gone back to without a break
		}
		newest = i
	}
	if newest < 0 {
		return out
	}
	logs := c.logs(all[newest].Log)
	for _, p := range logs {
		out.Pieces++
		out.Size += c.sizes[p.name()]
	}
	out.From, out.To, out.GTID = all[first].At, all[newest].At, all[newest].GTID
	g, err := parseGTID(all[newest].GTID)
	if err != nil {
		return out
	}
	pieces, err := chain(logs, g.seq, bound{})
	if err != nil {
		out.Gap = err.Error()
	}
	if n := len(pieces); n > 0 {
		out.To, out.GTID = time.Unix(pieces[n-1].to, 0).UTC(), position(pieces[n-1].last)
	}
	return out
}
