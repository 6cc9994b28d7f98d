package database

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"trivet/database/sst"
	"trivet/internal/mtls/mtlstest"
	"trivet/internal/part"
	"trivet/site"
)

// TestMain lets this test binary be the SST program, as trivet is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "sst" {
		if err := sst.SST(context.Background(), os.Args[2:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, "sst:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// lab is three servers in network namespaces, with an agreement in memory.
type lab struct {
	t         *testing.T
	base      string
	site      *site.Site
	authority *mtlstest.Authority
	servers   []*server

	mu      sync.Mutex
	members []part.Member
	role    part.DatabaseRole
	record  part.DatabaseRecord
	changed chan struct{} // closed and replaced with each change
}

type server struct {
	lab    *lab
	name   string
	space  string // network namespace
	db     *Database
	id     part.KeyPair
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

const secret = `it's a "secret" \ here`

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: runs mariadbd in network namespaces")
	}
	for _, name := range []string{"mariadbd", "mariadb-backup", "mbstream", "ip"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s: %v", name, err)
		}
	}
	base, err := os.MkdirTemp("/tmp", "tdb-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, base: base, authority: mtlstest.New(t, "foo-bar"), changed: make(chan struct{})}
	l.site = &site.Site{Name: "foo-bar", Database: site.Database{Name: "foo_bar", User: "foo-bar", Memory: 64}}
	copySelf(t, filepath.Join(base, "trivet"))
	l.network()
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("s%d", i)
		l.members = append(l.members, part.Member{Name: name, Address: fmt.Sprintf("10.81.0.%d", 10+i), Alive: true})
		l.servers = append(l.servers, &server{lab: l, name: name, space: fmt.Sprintf("tdb-%d", i), id: l.authority.Identity(t, name, part.Database)})
	}
	t.Cleanup(l.stop)
	return l
}

func copySelf(t *testing.T, to string) {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, from); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// network makes the bridge and the namespaces, and removes what an earlier run left.
func (l *lab) network() {
	l.t.Helper()
	remove := func() {
		for i := 1; i <= 3; i++ {
			_ = exec.Command("ip", "netns", "del", fmt.Sprintf("tdb-%d", i)).Run()
			_ = exec.Command("ip", "link", "del", fmt.Sprintf("tdb-v%d", i)).Run()
		}
		_ = exec.Command("ip", "link", "del", "tdb-br").Run()
	}
	remove()
	l.t.Cleanup(remove)
	l.ip("link add tdb-br type bridge")
	l.ip("link set tdb-br up")
	for i := 1; i <= 3; i++ {
		l.ip("netns add tdb-%d", i)
		l.ip("link add tdb-v%d type veth peer name eth0 netns tdb-%d", i, i)
		l.ip("link set tdb-v%d master tdb-br up", i)
		l.ip("-n tdb-%d addr add 10.81.0.%d/24 dev eth0", i, 10+i)
		l.ip("-n tdb-%d link set eth0 up", i)
		l.ip("-n tdb-%d link set lo up", i)
	}
}

func (l *lab) ip(format string, args ...any) {
	l.t.Helper()
	line := fmt.Sprintf(format, args...)
	if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v: %s", line, err, out)
	}
}

// change changes the agreement under the lock and tells everyone.
func (l *lab) change(f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := f()
	close(l.changed)
	l.changed = make(chan struct{})
	return err
}

func (l *lab) member(name string) *part.Member {
	for i := range l.members {
		if l.members[i].Name == name {
			return &l.members[i]
		}
	}
	return nil
}

// state is what server name knows, and a channel that is closed when it changes.
func (l *lab) state(s *server) (part.State, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return part.State{
		Site: l.site, Server: s.name, Members: append([]part.Member(nil), l.members...), Quorum: true, Database: l.role, Record: l.record,
		Identity: s.id, Bundle: l.authority.Bundle, Secrets: map[string]string{part.SecretAppDatabase: secret},
	}, l.changed
}

func (s *server) paths() Paths {
	dir := filepath.Join(s.lab.base, s.name)
	return Paths{
		Data: dir + "/data", TLS: dir + "/tls", Settings: dir + "/my.cnf", Run: dir + "/sst",
		Records: dir + "/process", Log: dir + "/log/mariadbd.log", Socket: dir + "/run/mariadbd.sock",
	}
}

// start starts a supervisor, as node does.
func (s *server) start() {
	l := s.lab
	l.t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{l.t}, nil)).With("server", s.name)
	s.db = New(Config{
		Server: s.name, Log: log, Executable: filepath.Join(l.base, "trivet"), Paths: s.paths(),
		Report:      func(m part.DatabaseMember) { _ = l.change(func() error { l.member(s.name).Database = m; return nil }) },
		ElectWriter: l.electWriter, Agree: l.agree, Remember: l.remember,
	})
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(func() { s.push(ctx) })
	s.wg.Go(func() {
		if err := inNamespace(s.space, func() error { return s.db.Run(ctx) }); err != nil {
			l.t.Errorf("run %s: %v", s.name, err)
		}
	})
}

// push applies each new state.
func (s *server) push(ctx context.Context) {
	for {
		state, changed := s.lab.state(s)
		if err := s.db.Apply(ctx, state); err != nil {
			s.lab.t.Errorf("apply on %s: %v", s.name, err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// leave ends the supervisor and lets mariadbd run.
func (s *server) leave() {
	s.cancel()
	s.wg.Wait()
}

func (l *lab) electWriter(_ context.Context, epoch int64, writer string) error {
	return l.change(func() error {
		if l.role.Epoch != epoch {
			return fmt.Errorf("epoch is %d", l.role.Epoch)
		}
		l.role.Writer, l.role.Epoch = writer, epoch+1
		return nil
	})
}

func (l *lab) agree(_ context.Context, previous, next part.DatabaseRole) error {
	return l.change(func() error {
		previous.Writer, previous.Epoch = l.role.Writer, l.role.Epoch
		if !reflect.DeepEqual(l.role, previous) {
			return fmt.Errorf("role is %+v", l.role)
		}
		next.Writer, next.Epoch = l.role.Writer, l.role.Epoch
		l.role = next
		return nil
	})
}

func (l *lab) remember(_ context.Context, change func(*part.DatabaseRecord)) error {
	return l.change(func() error { change(&l.record); return nil })
}

// stop ends all that runs; the logs are shown if the test failed.
func (l *lab) stop() {
	var wg sync.WaitGroup
	for _, s := range l.servers {
		if s.db == nil {
			continue
		}
		wg.Go(func() {
			s.leave()
			ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
			defer cancel()
			if err := s.db.Stop(ctx); err != nil {
				l.t.Errorf("stop %s: %v", s.name, err)
			}
		})
	}
	wg.Wait()
	if !l.t.Failed() {
		return
	}
	for _, s := range l.servers {
		out, _ := exec.Command("tail", "-n", "60", s.paths().Log).CombinedOutput()
		l.t.Logf("%s:\n%s", s.paths().Log, out)
	}
}

// inNamespace runs f on a thread that is in the namespace, so that processes f starts are too.
func inNamespace(name string, f func() error) error {
	fd, err := unix.Open("/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return err
	}
	return f()
}

// until waits for a condition on the agreement and returns how long it took.
func (l *lab) until(what string, limit time.Duration, holds func() bool) time.Duration {
	l.t.Helper()
	began := time.Now()
	deadline := time.After(limit)
	for {
		l.mu.Lock()
		ok, changed := holds(), l.changed
		l.mu.Unlock()
		if ok {
			return time.Since(began)
		}
		select {
		case <-changed:
		case <-deadline:
			for _, s := range l.servers {
				l.t.Logf("%s: %v", s.name, s.db.Check(context.Background()))
			}
			l.t.Fatalf("%s: not within %v: %+v %+v", what, limit, l.role, l.members)
		}
	}
}

func (l *lab) synced(names ...string) func() bool {
	return func() bool {
		for _, n := range names {
			if l.member(n).Database.State != part.DatabaseSynced {
				return false
			}
		}
		return true
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}
