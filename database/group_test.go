package database

import (
	"context"
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"trivet/database/sst"
	"trivet/internal/part"
	"trivet/internal/process"
)

// TestGroup is a database's life on three servers: from nothing to three
// synced nodes, a dead writer, a cut-off writer, a new supervisor, a full stop.
func TestGroup(t *testing.T) {
	l := newLab(t)
	for _, s := range l.servers {
		s.start()
	}
	t.Logf("MEASURE nothing to three synced: %v", l.until("bring-up", 60*time.Second, l.synced("s1", "s2", "s3")))
	l.until("writer", 5*time.Second, func() bool { return l.role.Writer == "s1" && l.role.UUID != "" })
	app := l.app("s1")
	l.exec(app, "CREATE TABLE m (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT)")
	l.write(app, "one")
	l.reads("one")

	l.listensToPeersOnly()
	l.renew()
	l.resize()
	l.keepsPasswordSecret()
	l.killWriter()
	l.cutWriter()
	l.fullCopy()
	l.killTwo()
	l.freezeWriter()
	l.newSupervisor()
	l.restartAll()
	l.oldCopy()
	l.followsNoOldCopy()
}

// app is a connection as the app's user.
func (l *lab) app(name string) *sql.DB {
	l.t.Helper()
	db, err := open(l.server(name).paths().Socket, l.site.Database.User, secret, l.site.Database.Name)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = db.Close() })
	l.poll("the app's user signs in on "+name, 10*time.Second, func() bool { return db.Ping() == nil })
	return db
}

func (l *lab) server(name string) *server {
	for _, s := range l.servers {
		if s.name == name {
			return s
		}
	}
	l.t.Fatalf("no server %s", name)
	return nil
}

func (l *lab) exec(db *sql.DB, query string, args ...any) {
	l.t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		l.t.Fatalf("%s: %v", query, err)
	}
}

// poll is for what no one tells us; it looks often, against a deadline.
func (l *lab) poll(what string, limit time.Duration, holds func() bool) time.Duration {
	l.t.Helper()
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Since(began) > limit {
			l.t.Fatalf("%s: not within %v", what, limit)
		}
		<-tick.C
	}
	return time.Since(began)
}

func (l *lab) write(db *sql.DB, text string) {
	l.t.Helper()
	l.exec(db, "INSERT INTO m (t) VALUES (?)", text)
}

// reads waits until every server shows exactly these texts.
func (l *lab) reads(want ...string) {
	l.t.Helper()
	for _, s := range l.servers {
		db := l.app(s.name)
		var got string
		l.poll("read "+strings.Join(want, ",")+" on "+s.name, 5*time.Second, func() bool {
			err := db.QueryRow("SELECT GROUP_CONCAT(t ORDER BY id) FROM m").Scan(&got)
			return err == nil && got == strings.Join(want, ",")
		})
	}
}

// next waits for another writer than old and until it takes a write.
func (l *lab) next(old, text string) (agreed, written time.Duration) {
	l.t.Helper()
	began := time.Now()
	agreed = l.until("another writer", 10*time.Second, func() bool { return l.role.Writer != old })
	app := l.app(l.writer())
	l.poll("write "+text, 10*time.Second, func() bool {
		_, err := app.Exec("INSERT INTO m (t) VALUES (?)", text)
		return err == nil
	})
	return agreed, time.Since(began)
}

func (l *lab) writer() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.role.Writer
}

func (l *lab) killWriter() {
	l.t.Helper()
	old := l.writer()
	l.server(old).kill()
	agreed, written := l.next(old, "two")
	l.t.Logf("MEASURE kill -9 of the writer's mariadbd: new writer agreed %v, first write %v", agreed, written)
	l.t.Logf("MEASURE rejoin after that: %v", written+l.until("rejoin", 30*time.Second, l.synced("s1", "s2", "s3")))
	l.reads("one", "two")
}

func (s *server) mariadbd() *process.Process {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	return s.db.process
}

func (s *server) kill() {
	s.lab.t.Helper()
	if err := s.mariadbd().Signal(syscall.SIGKILL); err != nil {
		s.lab.t.Fatal(err)
	}
}

// killTwo leaves one node, which goes on: the others are known to be dead.
func (l *lab) killTwo() {
	l.t.Helper()
	writer := l.writer()
	for _, s := range l.servers {
		if s.name != writer {
			s.kill()
		}
	}
	l.until("death of two", 5*time.Second, func() bool {
		return len(slices.DeleteFunc(slices.Clone(l.members), func(m part.Member) bool { return m.Database.State == part.DatabaseSynced })) >= 2
	})
	app := l.app(writer)
	l.t.Logf("MEASURE two of three killed: first write %v", l.poll("write four", 30*time.Second, func() bool {
		_, err := app.Exec("INSERT INTO m (t) VALUES ('four')")
		return err == nil
	}))
	l.t.Logf("MEASURE two of three killed: all synced again %v", l.until("rejoin of two", 60*time.Second, l.synced("s1", "s2", "s3")))
	l.reads("one", "two", "three", "four")
}

// freezeWriter stops the writer's mariadbd for a while; it does not die.
func (l *lab) freezeWriter() {
	l.t.Helper()
	old := l.writer()
	p := l.server(old).mariadbd()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		l.t.Fatal(err)
	}
	agreed, written := l.next(old, "five")
	l.until("notice of the freeze", 5*time.Second, func() bool { return !l.synced(old)() })
	if err := p.Signal(syscall.SIGCONT); err != nil {
		l.t.Fatal(err)
	}
	l.t.Logf("MEASURE writer frozen: new writer agreed %v, first write %v", agreed, written)
	l.t.Logf("MEASURE thawed to synced: %v", l.until("thaw", 30*time.Second, l.synced("s1", "s2", "s3")))
	l.reads("one", "two", "three", "four", "five")
}

func (l *lab) cutWriter() {
	l.t.Helper()
	old := l.writer()
	link := "tdb-v" + strings.TrimPrefix(old, "s")
	l.ip("link set %s down", link)
	agreed, written := l.next(old, "three")
	l.t.Logf("MEASURE writer's server cut off: new writer agreed %v, first write %v", agreed, written)
	l.renew() // the one that is cut off reads its new identity too, or else it would not get back in
	l.ip("link set %s up", link)
	l.t.Logf("MEASURE healed to synced: %v", l.until("heal", 30*time.Second, l.synced("s1", "s2", "s3")))
	l.reads("one", "two", "three")
}

// newSupervisor replaces the supervisor of a server: its mariadbd is not touched.
func (l *lab) newSupervisor() {
	l.t.Helper()
	s := l.server("s2")
	pid := s.mariadbd().PID()
	s.leave()
	restore := s.garbleRecord()
	s.start()
	l.poll("doubt", 5*time.Second, func() bool {
		err := s.db.Check(l.t.Context())
		return err != nil && strings.Contains(err.Error(), "find out whether mariadbd runs")
	})
	if s.mariadbd() != nil {
		l.t.Error("mariadbd was started though it could not be told whether it runs")
	}
	restore()
	l.until("adopted", 5*time.Second, func() bool { return s.db.Check(l.t.Context()) == nil && l.synced("s2")() })
	if got := s.mariadbd().PID(); got != pid {
		l.t.Errorf("mariadbd's pid after adoption: got %d, want %d", got, pid)
	}
}

// restartAll kills all three at once, as a power cut does, and starts them anew.
func (l *lab) restartAll() {
	l.t.Helper()
	for _, s := range l.servers {
		s.leave()
	}
	for _, s := range l.servers {
		if err := s.db.Stop(cancelled()); err != nil {
			l.t.Fatal(err)
		}
	}
	uuid := l.role.UUID
	_ = l.change(func() error {
		for i := range l.members {
			l.members[i].Database.State, l.members[i].Alive = "", true
		}
		return nil
	})
	for _, s := range l.servers {
		s.start()
	}
	l.t.Logf("MEASURE all three killed to all synced: %v", l.until("recovery", 40*time.Second, l.synced("s1", "s2", "s3")))
	if l.role.UUID != uuid {
		l.t.Errorf("history after a full stop: got %s, want %s", l.role.UUID, uuid)
	}
	l.reads("one", "two", "three", "four", "five")
}

// cancelled makes Stop kill at once.
func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// listensToPeersOnly makes sure that no server speaks SQL on the network.
func (l *lab) listensToPeersOnly() {
	l.t.Helper()
	for _, s := range l.servers {
		out, err := exec.Command("ip", "netns", "exec", s.space, "ss", "-Hltn").Output()
		if err != nil {
			l.t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if got, want := strings.Fields(line)[3], l.member(s.name).Address+":4567"; got != want {
				l.t.Errorf("%s listens on %s; want only %s", s.name, got, want)
			}
		}
	}
}

// renew gives every server a new identity, which the later rejoins then use.
func (l *lab) renew() {
	l.t.Helper()
	_ = l.change(func() error {
		for _, s := range l.servers {
			s.id = l.authority.Identity(l.t, s.name, part.Database)
		}
		return nil
	})
	for _, s := range l.servers {
		l.poll("renewed identity on "+s.name, 5*time.Second, func() bool {
			s.db.mu.Lock()
			defer s.db.mu.Unlock()
			return !s.db.renewed && string(s.db.state.Identity.Key) == string(s.id.Key)
		})
	}
}

// resize changes the memory that the site gives the database.
func (l *lab) resize() {
	l.t.Helper()
	changed := *l.site
	changed.Database.Memory *= 2
	_ = l.change(func() error { l.site = &changed; return nil })
	for _, s := range l.servers {
		var got int64
		l.poll("memory on "+s.name, 10*time.Second, func() bool {
			_ = s.db.db.QueryRow("SELECT @@innodb_buffer_pool_size").Scan(&got)
			return got == int64(changed.Database.Memory)<<20
		})
	}
}

// keepsPasswordSecret looks for the app's password in what each server wrote down.
func (l *lab) keepsPasswordSecret() {
	l.t.Helper()
	for _, s := range l.servers {
		logs, err := filepath.Glob(s.paths().Data + "/bin.0*")
		if err != nil || len(logs) == 0 {
			l.t.Fatalf("binary logs of %s: %v %v", s.name, logs, err)
		}
		for _, name := range logs {
			data, err := os.ReadFile(name)
			if err != nil {
				l.t.Fatal(err)
			}
			if strings.Contains(string(data), "secret") {
				l.t.Errorf("%s holds the app's password", name)
			}
		}
	}
}

// garbleRecord makes the record of mariadbd unreadable until restore.
func (s *server) garbleRecord() (restore func()) {
	s.lab.t.Helper()
	name := filepath.Join(s.paths().Records, recordName+".json")
	good, err := os.ReadFile(name)
	if err != nil {
		s.lab.t.Fatal(err)
	}
	put := func(data []byte) {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			s.lab.t.Fatal(err)
		}
	}
	put([]byte("{"))
	return func() { put(good) }
}

// fullCopy lets a server find half of a copy in its data folder.
func (l *lab) fullCopy() {
	l.t.Helper()
	s := l.server("s3")
	s.leave()
	if err := s.db.Stop(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.paths().Data, sst.ProgressFile), nil, 0o600); err != nil {
		l.t.Fatal(err)
	}
	_ = l.change(func() error { l.member("s3").Database = part.DatabaseMember{}; return nil })
	s.start()
	l.t.Logf("MEASURE full copy: %v", l.until("full copy", 30*time.Second, l.synced("s1", "s2", "s3")))
	l.reads("one", "two", "three")
}

// halt ends a server's mariadbd and its supervisor, and what the others know of them.
func (s *server) halt() {
	s.lab.t.Helper()
	s.leave()
	if err := s.db.Stop(s.lab.t.Context()); err != nil {
		s.lab.t.Fatal(err)
	}
	_ = s.lab.change(func() error { s.lab.member(s.name).Database = part.DatabaseMember{}; return nil })
}

func (s *server) copyFolder(from, to string) {
	s.lab.t.Helper()
	if err := os.RemoveAll(to); err != nil {
		s.lab.t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		s.lab.t.Fatalf("%v: %s", err, out)
	}
}

// planted lies in an old copy; a full copy does away with it.
const planted = "planted"

// oldCopy restores the data folder of a server from before: it is known for
// what it is, and replaced.
func (l *lab) oldCopy() {
	l.t.Helper()
	s := l.server("s3")
	data, kept := s.paths().Data, filepath.Join(l.base, "old")
	s.halt()
	s.copyFolder(data, kept)
	if err := os.WriteFile(filepath.Join(kept, planted), nil, 0o644); err != nil {
		l.t.Fatal(err)
	}
	s.start()
	l.until("rejoin", 30*time.Second, l.synced("s1", "s2", "s3"))
	l.write(l.app(l.writer()), "six")
	s.halt()
	s.copyFolder(kept, data)
	s.start()
	l.t.Logf("MEASURE old copy to synced: %v", l.until("old copy replaced", 30*time.Second, l.synced("s1", "s2", "s3")))
	if exists(filepath.Join(data, planted)) {
		l.t.Error("the old copy was followed: no full copy took its place")
	}
	l.reads("one", "two", "three", "four", "five", "six")
}

// followsNoOldCopy leaves nothing but an old copy: it starts by an operator's word only.
func (l *lab) followsNoOldCopy() {
	l.t.Helper()
	for _, s := range l.servers {
		s.halt()
	}
	for _, s := range l.servers {
		if err := os.RemoveAll(s.paths().Data); err != nil {
			l.t.Fatal(err)
		}
	}
	s := l.server("s3")
	s.copyFolder(filepath.Join(l.base, "old"), s.paths().Data)
	for _, s := range l.servers {
		s.start()
	}
	l.poll("refusal", 20*time.Second, func() bool {
		err := s.db.Check(l.t.Context())
		return err != nil && strings.Contains(err.Error(), "it is an old copy")
	})
	force, err := s.db.Choose("s3", nil)
	if err != nil {
		l.t.Fatal(err)
	}
	_ = l.change(func() error { l.role.Force = force; return nil })
	l.until("start by an operator's word", 40*time.Second, l.synced("s1", "s2", "s3"))
	l.until("the word is used up", 5*time.Second, func() bool { return l.role.Force.Server == "" })
	l.reads("one", "two", "three", "four", "five")
}
