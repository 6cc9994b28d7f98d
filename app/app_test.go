package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/part"
	"trivet/site"
)

// TestMain is the app under test too: the tests run their own binary as the site's program.
func TestMain(m *testing.M) {
	if mode := os.Getenv("TEST_APP"); mode != "" {
		fmt.Fprintln(os.Stderr, program(mode))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// program is a web application that behaves as mode says.
func program(mode string) error {
	if mode == "crash" {
		return errors.New("a reason to crash")
	}
	network, address := "unix", os.Getenv("SOCKET")
	if port := os.Getenv("PORT"); port != "" {
		network, address = "tcp", "127.0.0.1:"+port
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if mode == "sick" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"pid": os.Getpid(), "uid": os.Getuid(), "env": os.Environ()})
	})
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() { _ = http.Serve(l, nil) }()
	<-end
	os.Exit(0)
	return nil
}

// bench is where one test runs Apps.
type bench struct {
	t    *testing.T
	cfg  Config
	last part.State
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: instances run as another user")
	}
	name := part.UserApp
	if _, err := user.Lookup(name); err != nil {
		t.Logf("there is no user %s: instances run as root", name)
		name = "root"
	}
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"records", "log", "run", "release/app"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "run"), 0o777); err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "release/app/app"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	s := site.Default()
	s.Name, s.Domain, s.Database.Name, s.Database.User = "foobar", "www.foobar.com", "foobar", "foo"
	s.App.Source, s.App.Run, s.App.Environment = "app", []string{"./app"}, map[string]string{"TEST_APP": "good"}
	s.App.Health.Interval, s.App.Health.Timeout = site.Duration(100*time.Millisecond), site.Duration(100*time.Millisecond)
	s.App.Grace = site.Duration(300 * time.Millisecond)
	return &bench{
		t: t,
		cfg: Config{
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Server: "s1", User: name,
			Records: filepath.Join(dir, "records"), LogDir: filepath.Join(dir, "log"), RunDir: filepath.Join(dir, "run"),
		},
		last: part.State{
			Site: &s, Release: part.Release{Hash: strings.Repeat("a", 64), Dir: filepath.Join(dir, "release")},
			Secrets: map[string]string{part.SecretAppDatabase: "p@ss/word", part.SecretEnvironment: "TOKEN=x=y\n"},
		},
	}
}

// state returns the bench's state after change.
func (b *bench) state(change func(*part.State)) part.State {
	s := b.last
	s.Site = s.Site.Clone()
	change(&s)
	return s
}

// mode returns a state whose instances behave as m says.
func (b *bench) mode(m string) part.State {
	return b.state(func(s *part.State) { s.Site.App.Environment["TEST_APP"] = m })
}

// run runs an App until the returned func is called.
func (b *bench) run() (*App, func()) {
	b.t.Helper()
	a := New(b.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	wait(b.t, "Run has begun", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.running
	})
	stopped := false
	halt := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	}
	b.t.Cleanup(func() {
		halt()
		if err := New(b.cfg).Stop(context.Background()); err != nil {
			b.t.Errorf("Stop: %v", err)
		}
	})
	return a, halt
}

func (b *bench) apply(a *App, s part.State) {
	b.t.Helper()
	if err := a.Apply(b.t.Context(), s); err != nil {
		b.t.Fatalf("Apply: %v", err)
	}
}

// ready waits until Check is content.
// runReady is run, and the last release's instances are healthy.
func (b *bench) runReady() (*App, func()) {
	b.t.Helper()
	a, halt := b.run()
	b.apply(a, b.last)
	b.ready(a)
	return a, halt
}

func (b *bench) ready(a *App) {
	b.t.Helper()
	wait(b.t, "all instances are healthy", func() bool { return a.Check(b.t.Context()) == nil })
}

// wait waits until ok holds.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		<-tick.C
	}
}

type answer struct {
	PID int
	UID int
	Env []string
}

// ask sends a request to an instance.
func ask(t *testing.T, i part.Instance) answer {
	t.Helper()
	c := newChecker(i)
	defer c.close()
	res, err := c.client.Get("http://x/")
	if err != nil {
		t.Fatalf("ask %s: %v", i.Name, err)
	}
	defer func() { _ = res.Body.Close() }()
	var got answer
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	return got
}

func names(list []part.Instance) []string {
	var out []string
	for _, i := range list {
		out = append(out, i.Name)
	}
	return out
}

func pids(t *testing.T, a *App) []int {
	t.Helper()
	var out []int
	for _, i := range a.Instances() {
		out = append(out, ask(t, i).PID)
	}
	return out
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestStartsInstances(t *testing.T) {
	b := newBench(t)
	a, _ := b.run()
	if err := a.Check(t.Context()); err == nil {
		t.Error("Check before the first Apply: got nil")
	}
	b.apply(a, b.last)
	b.ready(a)
	list := a.Instances()
	if diff := cmp.Diff([]string{"1-1", "1-2"}, names(list)); diff != "" {
		t.Fatalf("instances (-want +got):\n%s", diff)
	}
	got := ask(t, list[1])
	slices.Sort(got.Env)
	want := []string{
		"DATABASE_READ_SOCKET=/run/trivet/router/read.sock", "DATABASE_READ_URL=mysql://foo:p%40ss%2Fword@127.0.0.1:3307/foobar",
		"DATABASE_SOCKET=/run/trivet/router/mysql.sock", "DATABASE_URL=mysql://foo:p%40ss%2Fword@127.0.0.1:3306/foobar",
		"HOME=/nonexistent", "LANG=C.UTF-8", "PATH=" + searchPath, "SOCKET=" + list[1].Address,
		"TEST_APP=good", "TOKEN=x=y", "TRIVET_INSTANCE=1-2", "TRIVET_RELEASE=" + b.last.Release.Hash, "TRIVET_SERVER=s1",
	}
	if diff := cmp.Diff(want, got.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	u, err := user.Lookup(b.cfg.User)
	if err != nil {
		t.Fatal(err)
	}
	if strconv.Itoa(got.UID) != u.Uid {
		t.Errorf("runs as uid %d, want %s", got.UID, u.Uid)
	}
	info, err := os.Stat(list[0].Address)
	if err != nil || info.Mode().Perm() != 0o770 {
		t.Errorf("socket: mode %v, error %v, want 0770", info.Mode(), err)
	}
}

func TestKilledInstanceComesBack(t *testing.T) {
	b := newBench(t)
	a, _ := b.runReady()
	before := pids(t, a)
	if err := syscall.Kill(before[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, "its loss is noticed", func() bool { return a.Check(t.Context()) != nil })
	if got := names(a.Instances()); !slices.Equal(got, []string{"1-2"}) {
		t.Errorf("while it is down: got %v, want the other one", got)
	}
	b.ready(a)
	after := pids(t, a)
	if after[0] == before[0] || after[1] != before[1] {
		t.Errorf("pids %v, then %v: want the first changed only", before, after)
	}
}

func TestFrozenInstanceIsReplaced(t *testing.T) {
	b := newBench(t)
	a, _ := b.runReady()
	before := pids(t, a)
	if err := syscall.Kill(before[1], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	wait(t, "it is taken out", func() bool { return len(a.Instances()) == 1 })
	if err := a.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "1-2 is not healthy: /healthz did not answer within 100ms") {
		t.Errorf("Check: got %v", err)
	}
	b.ready(a)
	wait(t, "the frozen process is gone", func() bool { return !alive(before[1]) })
}

func TestAdoption(t *testing.T) {
	b := newBench(t)
	a, halt := b.runReady()
	before := pids(t, a)
	halt()

	a = New(b.cfg)
	if got := names(a.Instances()); !slices.Equal(got, []string{"1-1", "1-2"}) {
		t.Errorf("before Run and Apply: got %v, want both instances", got)
	}
	a, _ = b.runReady()
	if got := pids(t, a); !slices.Equal(got, before) {
		t.Errorf("pids %v, then %v: want the same", before, got)
	}
	if err := syscall.Kill(before[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, "the loss of an adopted one is noticed", func() bool { return a.Check(t.Context()) != nil })
	b.ready(a)
}

// TestDoubt: while it cannot be told whether an instance runs, nothing is started, ended or removed.
func TestDoubt(t *testing.T) {
	b := newBench(t)
	a, halt := b.runReady()
	before := pids(t, a)
	halt()
	record := filepath.Join(b.cfg.Records, recordPrefix+"1-1.json")
	good, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(record, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, _ = b.run()
	b.apply(a, b.mode("other")) // asks for another generation
	if err := a.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "find out which instances run") {
		t.Errorf("Check: got %v, want the doubt", err)
	}
	if got := names(a.Instances()); !slices.Equal(got, []string{"1-2"}) {
		t.Errorf("in doubt: got %v, want the known one to go on", got)
	}
	a.mu.Lock()
	if a.coming != nil {
		t.Error("another generation was started")
	}
	a.mu.Unlock()
	if err := os.WriteFile(record, good, 0o600); err != nil {
		t.Fatal(err)
	}
	b.apply(a, b.last)
	b.ready(a)
	if got := pids(t, a); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(before))) {
		t.Errorf("pids %v, then %v: want the same", before, got)
	}
}

func TestDeathWhileNobodyWatches(t *testing.T) {
	b := newBench(t)
	a, halt := b.runReady()
	before := pids(t, a)
	halt()
	if err := syscall.Kill(before[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, "it is dead", func() bool { return !alive(before[0]) })
	a, _ = b.runReady()
	if got := pids(t, a); got[0] == before[0] || got[1] != before[1] {
		t.Errorf("pids %v, then %v: want the first changed only", before, got)
	}
}

func TestRoll(t *testing.T) {
	b := newBench(t)
	a, _ := b.runReady()
	old, oldPIDs := a.Instances(), pids(t, a)
	changed := b.state(func(s *part.State) { s.Secrets = map[string]string{part.SecretAppDatabase: "new"} })
	b.apply(a, changed)
	if diff := cmp.Diff([]string{"2-1", "2-2"}, names(a.Instances())); diff != "" {
		t.Errorf("after Apply (-want +got):\n%s", diff)
	}
	a.Settle(names(old)) // web still uses the old ones
	for i, o := range old {
		if got := ask(t, o).PID; got != oldPIDs[i] {
			t.Errorf("former instance %s: pid %d, want %d", o.Name, got, oldPIDs[i])
		}
	}
	a.Settle([]string{"2-1", "2-2"})
	for _, pid := range oldPIDs {
		wait(t, "the former instances have ended", func() bool { return !alive(pid) })
	}
	b.ready(a)
}

func TestRollWithoutSettle(t *testing.T) {
	b := newBench(t)
	a, _ := b.runReady()
	old := pids(t, a)
	b.apply(a, b.state(func(s *part.State) { s.Site.App.Instances = 1 }))
	for _, pid := range old {
		wait(t, "the former instances have ended", func() bool { return !alive(pid) })
	}
	if got := names(a.Instances()); !slices.Equal(got, []string{"2-1"}) {
		t.Errorf("got %v, want one instance", got)
	}
}

func TestBadReleaseNeverServes(t *testing.T) {
	for mode, want := range map[string]string{"crash": "a reason to crash", "sick": "2-1 is not healthy yet: /healthz answers 503"} {
		t.Run(mode, func(t *testing.T) {
			b := newBench(t)
			a, _ := b.run()
			b.apply(a, b.last)
			b.ready(a)
			old := pids(t, a)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if err := a.Apply(ctx, b.mode(mode)); err == nil {
				t.Error("Apply: got no error")
			}
			wait(t, "Check says why", func() bool {
				err := a.Check(t.Context())
				return err != nil && strings.Contains(err.Error(), want)
			})
			if got := pids(t, a); !slices.Equal(got, old) {
				t.Errorf("pids %v, then %v: want the former to go on", old, got)
			}
			b.apply(a, b.last)
			b.ready(a)
			if got := pids(t, a); !slices.Equal(got, old) {
				t.Errorf("after going back: pids %v, then %v: want the same", old, got)
			}
		})
	}
}

// TestRestartDuringRoll makes sure that no instance is forgotten when node dies in the middle of a change.
func TestRestartDuringRoll(t *testing.T) {
	b := newBench(t)
	a, halt := b.runReady()
	old := pids(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_ = a.Apply(ctx, b.mode("sick"))
	var coming []int
	wait(t, "the new instances run", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		coming = nil
		for _, i := range a.coming.instances {
			if i.process != nil {
				coming = append(coming, i.process.PID())
			}
		}
		return len(coming) == 2
	})
	halt()
	a, _ = b.run()
	for _, pid := range coming {
		wait(t, "the interrupted generation has ended", func() bool { return !alive(pid) })
	}
	if got := pids(t, a); !slices.Equal(got, old) {
		t.Errorf("pids %v, then %v: want the former to go on", old, got)
	}
	b.apply(a, b.mode("good"))
	b.ready(a)
}

func TestPort(t *testing.T) {
	b := newBench(t)
	a, _ := b.run()
	b.apply(a, b.state(func(s *part.State) { s.Site.App.Listen = site.ListenPort }))
	b.ready(a)
	if got := pids(t, a); len(got) != 2 || a.Instances()[0].Network != "tcp" {
		t.Errorf("got instances %v, want two by tcp", a.Instances())
	}
}

func TestWaits(t *testing.T) {
	b := newBench(t)
	a, _ := b.run()
	for want, s := range map[string]part.State{
		"the release is not on this server yet":    b.state(func(s *part.State) { s.Release = part.Release{} }),
		"the database's password is not known yet": b.state(func(s *part.State) { s.Secrets = nil }),
	} {
		b.apply(a, s)
		if err := a.Check(t.Context()); err == nil || err.Error() != want {
			t.Errorf("Check: got %v, want %s", err, want)
		}
	}
	b.apply(a, b.last)
	b.ready(a)
	b.apply(a, b.state(func(s *part.State) { s.Release = part.Release{} }))
	if got := len(a.Instances()); got != 2 {
		t.Errorf("a state without release: got %d instances, want 2 that go on", got)
	}
}

func TestWithoutApp(t *testing.T) {
	b := newBench(t)
	a, _ := b.runReady()
	old := pids(t, a)
	b.apply(a, b.state(func(s *part.State) { s.Site.App.Source = "" }))
	wait(t, "no instance is offered", func() bool { return len(a.Instances()) == 0 })
	a.Settle(nil)
	for _, pid := range old {
		wait(t, "the instances have ended", func() bool { return !alive(pid) })
	}
	if err := a.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

func TestStop(t *testing.T) {
	b := newBench(t)
	a, halt := b.runReady()
	old := pids(t, a)
	halt()
	if err := New(b.cfg).Stop(t.Context()); err != nil { // as after a restart of node
		t.Fatal(err)
	}
	for _, pid := range old {
		wait(t, "the instances have ended", func() bool { return !alive(pid) })
	}
	if files, _ := filepath.Glob(filepath.Join(b.cfg.Records, "*.json")); len(files) != 0 {
		t.Errorf("records left: %v", files)
	}
}

func TestProgram(t *testing.T) {
	exists := func(path string) bool { return path == "/r/app/x" || path == "/usr/bin/python3" }
	for name, want := range map[string]string{"./x": "/r/app/x", "/r/app/x": "/r/app/x", "python3": "/usr/bin/python3", "./y": "", "ruby": ""} {
		p := &plan{dir: "/r/app", run: []string{name}}
		got, err := p.program(exists)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("program %q: got %q, %v, want %q", name, got, err, want)
		}
	}
}
