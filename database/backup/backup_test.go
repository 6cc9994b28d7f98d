package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"trivet/internal/metric"
	"trivet/internal/part"
	"trivet/site"
)

// town is three servers' backup workers with an agreement in memory; servers
// beyond the group's nodes have no database.
type town struct {
	t       *testing.T
	g       *galera
	workers map[string]*Backup
	site    site.Site
	secret  map[string]string

	mu    sync.Mutex
	state part.State
}

func newTown(t *testing.T, nodes int) *town {
	t.Helper()
	tn := &town{t: t, g: newGalera(t, nodes), workers: map[string]*Backup{}, site: site.Default()}
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	tn.site.Name, tn.site.Database.Name = "foo-bar", "app"
	tn.secret = map[string]string{part.SecretBackup: key}
	tn.state = part.State{Site: &tn.site, Quorum: true, Bundle: tn.g.authority.Bundle}
	tn.state.Database = part.DatabaseRole{Writer: "s1", UUID: tn.g.nodes[0].uuid(t)}
	port := freePort(t)
	for i := 1; i <= 3; i++ {
		m := part.Member{Name: fmt.Sprintf("s%d", i), Address: fmt.Sprintf("127.81.0.%d", i), Alive: true}
		if i <= nodes {
			m.Database.State = part.DatabaseSynced
		}
		tn.state.Members = append(tn.state.Members, m)
	}
	for i, m := range tn.state.Members {
		tn.start(m, port, min(i, nodes-1))
	}
	return tn
}

// start starts a server's worker beside the node of that number.
func (tn *town) start(m part.Member, port, node int) {
	t := tn.t
	t.Helper()
	peers, err := net.Listen("tcp", fmt.Sprintf("%s:%d", m.Address, port))
	if err != nil {
		t.Fatal(err)
	}
	orders, err := net.Listen("unix", tn.g.dir+"/"+m.Name+".sock")
	if err != nil {
		t.Fatal(err)
	}
	dir := tn.g.dir + "/backups-" + m.Name
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	db := tn.g.nodes[node]
	b := New(Config{
		Log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug})).With("server", m.Name), Metrics: metric.NewRegistry(), Peer: peers, Control: orders,
		Hold:   func(_ context.Context, want bool) (bool, error) { return tn.hold(m.Name, want), nil },
		Record: func(_ context.Context, r part.BackupRole) error { tn.record(r); return nil },
		Dir:    dir, Data: db.data(), Socket: db.socket(), Port: port, FirstAfter: time.Hour,
	})
	tn.mu.Lock()
	tn.workers[m.Name] = b
	tn.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run %s: %v", m.Name, err)
		}
	})
	tn.tell()
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// change changes the agreement and tells all.
func (tn *town) change(f func(*part.State)) {
	tn.mu.Lock()
	tn.state.Members = slices.Clone(tn.state.Members)
	f(&tn.state)
	tn.mu.Unlock()
	tn.tell()
}

func (tn *town) tell() {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	for name, b := range tn.workers {
		s := tn.state
		s.Server, s.Secrets = name, tn.secret
		s.Identity = tn.g.authority.Identity(tn.t, name, part.Database)
		if err := b.Apply(context.Background(), s); err != nil {
			tn.t.Errorf("apply on %s: %v", name, err)
		}
	}
}

func (tn *town) hold(name string, want bool) bool {
	mine := false
	tn.change(func(s *part.State) {
		switch {
		case want && s.Backup.Holder == "":
			s.Backup.Holder = name
		case !want && s.Backup.Holder == name:
			s.Backup.Holder = ""
		}
		mine = s.Backup.Holder == name
	})
	return mine
}

func (tn *town) record(r part.BackupRole) {
	tn.change(func(s *part.State) { r.Holder = s.Backup.Holder; s.Backup = r })
}

func (tn *town) role() part.BackupRole {
	tn.mu.Lock()
	defer tn.mu.Unlock()
	return tn.state.Backup
}

// order has a server do a task, as node does.
func (tn *town) order(server, task string, o Order) (Outcome, error) {
	tn.t.Helper()
	d := net.Dialer{}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", tn.g.dir+"/"+server+".sock")
	}}}
	body, err := json.Marshal(o)
	if err != nil {
		tn.t.Fatal(err)
	}
	res, err := c.Post("http://backup/v1/backup/"+task, "application/json", bytes.NewReader(body))
	if err != nil {
		tn.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	dec := json.NewDecoder(res.Body)
	for {
		var m Message
		if err := dec.Decode(&m); err != nil {
			tn.t.Fatal(err)
		}
		if m.Error != "" {
			return Outcome{}, errors.New(m.Error)
		}
		if m.Outcome != nil {
			return *m.Outcome, nil
		}
	}
}

// archived waits until the server that archives has archived what node holds.
func (tn *town) archived(db *mariadb) time.Duration {
	tn.t.Helper()
	at := db.at(tn.t)
	return eventually(tn.t, at+" is archived", 20*time.Second, func() bool {
		for _, b := range tn.workers {
			b.mu.Lock()
			a := b.archive
			b.mu.Unlock()
			if a != nil && position(a.at.Load()) == at {
				return true
			}
		}
		return false
	})
}

// TestLife is a site's backups on three servers, of which two have a database:
// who does the work, copies on the two others, the archive a few seconds
// behind, its source going away, a place that was away, and a rehearsal.
func TestLife(t *testing.T) {
	tn := newTown(t, 2)
	one, two := tn.g.nodes[0], tn.g.nodes[1]
	one.do(t, "CREATE DATABASE app; CREATE TABLE app.m (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT)")
	eventually(t, "s2, which is synced and not the writer, has the work", 10*time.Second, func() bool { return tn.role().Holder == "s2" })

	out, err := tn.order("s2", "now", Order{})
	if err != nil {
		t.Fatal(err)
	}
	if tn.role().Last.ID != out.Backup.ID || tn.role().Since.IsZero() {
		t.Errorf("recorded = %+v, want %s", tn.role(), out.Backup.ID)
	}
	one.do(t, "INSERT INTO app.m (t) VALUES ('by s2')")
	if lag := tn.archived(one); lag > 5*time.Second {
		t.Errorf("the archive was %v behind, want at most 5 s", lag)
	}
	l, err := tn.workers["s2"].listing(t.Context())
	if err != nil || len(l.Backups) != 1 || !slices.Equal(l.Backups[0].Copies, []string{"s1", "s3"}) {
		t.Errorf("copies = %+v, %v, want them on s1 and s3", l.Backups, err)
	}

	// The source's server goes: another archives on, without a gap.
	tn.change(func(s *part.State) {
		s.Members[1].Database.State, s.Backup.Holder = part.DatabaseDown, ""
	})
	eventually(t, "s1 has the work", 10*time.Second, func() bool { return tn.role().Holder == "s1" })
	one.do(t, "INSERT INTO app.m (t) VALUES ('by s1')")
	tn.archived(one)
	tn.change(func(s *part.State) { s.Members[1].Database.State = part.DatabaseSynced })
	eventually(t, "s2 has the work again, for s1 is the writer", 10*time.Second, func() bool { return tn.role().Holder == "s2" })
	two.do(t, "INSERT INTO app.m (t) VALUES ('by s2 again')")
	tn.archived(two)

	d, err := tn.order("s2", "drill", Order{})
	if err != nil || d.Drill.Tables != 1 || d.Drill.Rows != 3 || tn.role().Verified.Backup != out.Backup.ID {
		t.Errorf("drill = %+v, %v; recorded %+v", d.Drill, err, tn.role().Verified)
	}
	r, err := tn.order("s2", "restore", Order{As: "again"})
	if err != nil || r.Loaded.Rows != 3 || len(r.Warnings) > 0 {
		t.Errorf("restore = %+v, %v", r, err)
	}
	if got := one.do(t, "SELECT GROUP_CONCAT(t ORDER BY id) FROM again.m"); got != "by s2,by s1,by s2 again" {
		t.Errorf("restored rows = %s", got)
	}
	tn.schedule()
}

// schedule makes backups due every minute of the past, and sees old ones go.
func (tn *town) schedule() {
	t := tn.t
	for range 2 {
		before := tn.role().Last.ID
		eventually(t, "the next second, which gives another id", 2*time.Second, func() bool { return time.Now().UTC().Format(idTime) > before[:len(idTime)] })
		tn.change(func(s *part.State) {
			made := *s.Site
			made.Database.Backup.Keep = 1
			s.Site = &made
			s.Backup.Last.At = s.Backup.Last.At.Add(-25 * time.Hour)
		})
		for _, b := range tn.workers {
			b.mu.Lock()
			b.done = part.BackupRole{}
			b.mu.Unlock()
		}
		tn.tell()
		eventually(t, "a backup is made by the schedule", 20*time.Second, func() bool { return tn.role().Last.ID != before })
	}
	verified := tn.role().Verified.Backup
	eventually(t, "what is too old is gone, but for the verified one", 10*time.Second, func() bool {
		l, err := tn.workers["s1"].listing(t.Context())
		return err == nil && len(l.Backups) == 2 && l.Backups[0].ID == verified && l.Backups[1].ID == tn.role().Last.ID
	})
}

// TestShelf is what a server's folder refuses of its peers.
func TestShelf(t *testing.T) {
	dir := t.TempDir()
	h := shelf(folder{"s1", dir})
	name := fullPrefix + "20261123-143205-s3/00001"
	put := func(name, digest, body string) int {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPut, objectsPath+name, strings.NewReader(body))
		r.Header.Set(digestHead, digest)
		h.ServeHTTP(w, r)
		return w.Code
	}
	tests := []struct {
		what, name, digest string
		want               int
	}{
		{"another digest", name, digest([]byte("other")), http.StatusBadRequest},
		{"a way out of the folder", "full/20261123-143205-s3/../../../etc/passwd", digest([]byte("piece")), http.StatusTemporaryRedirect},
		{"no name of a copy", "full/20261123-143205-s3/evil", digest([]byte("piece")), http.StatusBadRequest},
		{"a piece", name, digest([]byte("piece")), http.StatusOK},
	}
	for _, tt := range tests {
		if got := put(tt.name, tt.digest, "piece"); got != tt.want {
			t.Errorf("put of %s = %d, want %d", tt.what, got, tt.want)
		}
	}
	list, err := folder{"s1", dir}.list(t.Context(), "")
	if err != nil || len(list) != 1 || list[0] != (entry{name, 5}) {
		t.Errorf("list = %v, %v", list, err)
	}
	if _, err := (folder{"s1", dir}).get(t.Context(), fullPrefix+"20261123-143205-s3/00002"); !errors.Is(err, errMissing) {
		t.Errorf("get of what is not there = %v", err)
	}
}
