package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"golang.org/x/sys/unix"

	"trivet/internal/atomicfile"
)

// The test binary is also the programs that the tests start, named by PROGRAM.
var programs = map[string]func(){
	"serve":   serve,
	"starter": starter,
}

func TestMain(m *testing.M) {
	if f, ok := programs[os.Getenv("PROGRAM")]; ok {
		f()
		return
	}
	os.Exit(m.Run())
}

// serve answers every connection to the listener that it was given with its pid.
func serve() {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		panic(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		_, _ = fmt.Fprintln(c, os.Getpid())
		_ = c.Close()
	}
}

// starter is a supervisor that starts a process and ends, so that the process is nobody's child.
func starter() {
	if _, err := Start(os.Getenv("RECORDS"), shell(os.Getenv("RECORDS"), "orphan", "exec sleep 600")); err != nil {
		panic(err)
	}
}

func shell(dir, name, script string) Spec {
	return Spec{
		Name: name, Path: "/bin/sh", Args: []string{"-c", script},
		Env: []string{"PATH=/usr/bin:/bin"}, Log: filepath.Join(dir, name+".log"),
	}
}

func mustStart(t *testing.T, dir string, s Spec) *Process {
	t.Helper()
	p, err := Start(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop(context.Background(), syscall.SIGKILL, time.Second) })
	return p
}

func mustAdopt(t *testing.T, dir, name string) *Process {
	t.Helper()
	p, err := Adopt(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func awaitDone(t *testing.T, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(10 * time.Second):
		t.Fatalf("process %d has not ended", p.PID())
	}
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond) // between looks, not instead of one
	}
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(data))
}

// openFiles counts this process's open descriptors by what they are.
func openFiles(t *testing.T, kind string) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if what, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.Contains(what, kind) {
			n++
		}
	}
	return n
}

func TestStartRecords(t *testing.T) {
	dir := t.TempDir()
	s := shell(dir, "one", "exec sleep 600")
	s.Note = "settings 7"
	p := mustStart(t, dir, s)
	var got record
	data, err := os.ReadFile(filepath.Join(dir, "one.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	start, _, err := stat(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	got.Started = time.Time{}
	want := record{Name: "one", PID: p.PID(), Start: start, Note: "settings 7"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if pid, err := Running(dir, "one"); pid != p.PID() || err != nil {
		t.Errorf("Running = %d, %v, want %d", pid, err, p.PID())
	}
}

func TestExitStatus(t *testing.T) {
	tests := []struct{ script, want string }{
		{"exit 0", "<nil>"},
		{"exit 3", "exit status 3"},
		{"kill -KILL $$", "signal: killed"},
	}
	dir := t.TempDir()
	for _, tt := range tests {
		t.Run(tt.script, func(t *testing.T) {
			p := mustStart(t, dir, shell(dir, "ends", tt.script))
			awaitDone(t, p)
			if got := fmt.Sprint(p.Err()); got != tt.want {
				t.Errorf("Err = %s, want %s", got, tt.want)
			}
			p.Release()
			if _, err := Adopt(dir, "ends"); !errors.Is(err, ErrNone) {
				t.Errorf("Adopt after Release = %v, want ErrNone", err)
			}
		})
	}
}

// A process that ends before it could be recorded is one that ended, not one that could not be started.
func TestStartOfWhatEndsAtOnce(t *testing.T) {
	dir := t.TempDir()
	for range 50 {
		p, err := Start(dir, Spec{Name: "false", Path: "/bin/false", Log: filepath.Join(dir, "false.log")})
		if err != nil {
			t.Fatal(err)
		}
		awaitDone(t, p)
		if p.Err() == nil {
			t.Fatal("Err = nil, want exit status 1")
		}
		p.Release()
	}
}

func TestStartRefuses(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		name    string
		records string
		spec    Spec
	}{
		{"no such program", dir, Spec{Name: "x", Path: "/no/such", Log: filepath.Join(dir, "x.log")}},
		{"no such user", dir, Spec{Name: "x", Path: "/bin/true", User: "trivet-nobody-has-this", Log: filepath.Join(dir, "x.log")}},
		{"no folder for the log", dir, Spec{Name: "x", Path: "/bin/true", Log: filepath.Join(dir, "no/x.log")}},
		{"no folder for the record", filepath.Join(dir, "no"), shell(dir, "x", "exec sleep 600")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := openFiles(t, "pidfd")
			if p, err := Start(tt.records, tt.spec); err == nil {
				t.Fatalf("Start = process %d, want an error", p.PID())
			}
			if got := openFiles(t, "pidfd"); got != before {
				t.Errorf("open pidfds = %d, want %d", got, before)
			}
			if _, err := Adopt(tt.records, "x"); !errors.Is(err, ErrNone) {
				t.Errorf("Adopt = %v, want ErrNone", err)
			}
		})
	}
}

func TestAdoptOfNobodysChild(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	first := exec.Command(exe)
	first.Env = []string{"PROGRAM=starter", "RECORDS=" + dir}
	if out, err := first.CombinedOutput(); err != nil {
		t.Fatalf("first supervisor: %v: %s", err, out)
	}
	p := mustAdopt(t, dir, "orphan")
	if got := parent(t, p.PID()); got == os.Getpid() {
		t.Fatalf("parent = %d: the test would prove nothing", got)
	}
	select {
	case <-p.Done():
		t.Fatal("Done while it runs")
	default:
	}
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, p)
	if p.Err() == nil {
		t.Error("Err = nil, want that its exit status is not known")
	}
	p.Release()
	if _, err := Adopt(dir, "orphan"); !errors.Is(err, ErrNone) {
		t.Errorf("Adopt of the dead = %v, want ErrNone", err)
	}
}

func parent(t *testing.T, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Fields(string(data[strings.LastIndex(string(data), ") ")+2:]))[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAdoptFindsTheSame(t *testing.T) {
	dir := t.TempDir()
	s := shell(dir, "one", "exec sleep 600")
	s.Note = "settings 7"
	p := mustStart(t, dir, s)
	q := mustAdopt(t, dir, "one")
	if q.PID() != p.PID() || q.Note() != "settings 7" || !q.Started().Equal(p.Started()) {
		t.Errorf("adopted %d %q %v, want %d %q %v", q.PID(), q.Note(), q.Started(), p.PID(), p.Note(), p.Started())
	}
	if err := q.Stop(t.Context(), syscall.SIGTERM, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, p)
}

// otherThread returns the number of a thread of this process that is not its
// first and lives until the test ends.
func otherThread(t *testing.T) int {
	t.Helper()
	tids := make(chan int)
	for range 2 { // one of the two is not the first thread
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			tids <- syscall.Gettid()
			<-t.Context().Done()
		}()
	}
	one, other := <-tids, <-tids
	if one == os.Getpid() {
		return other
	}
	return one
}

func TestAdoptRefuses(t *testing.T) {
	dir := t.TempDir()
	p := mustStart(t, dir, shell(dir, "live", "exec sleep 600"))
	start, _, err := stat(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	tid := otherThread(t)
	begun, _, err := stat(tid)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		record record
	}{
		{"pid used anew", record{Name: "forged", PID: p.PID(), Start: start - 1}},
		{"pid is nobody's", record{Name: "forged", PID: 1 << 22, Start: start}},
		{"no record", record{}},
		{"pid is a thread's", record{Name: "forged", PID: tid, Start: begun}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, "forged.json")
			if tt.record.Name != "" {
				data, err := json.Marshal(tt.record)
				if err != nil {
					t.Fatal(err)
				}
				if err := atomicfile.Write(path, data, 0o600, -1, -1); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Running(dir, "forged"); !errors.Is(err, ErrNone) {
				t.Errorf("Running = %v, want ErrNone", err)
			}
			if _, err := Adopt(dir, "forged"); !errors.Is(err, ErrNone) {
				t.Errorf("Adopt = %v, want ErrNone", err)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("record is still there: %v", err)
			}
		})
	}
}

// Without a free descriptor nobody knows whether the process runs: to say
// "none" would have a second one started on the same data.
func TestAdoptWithoutDescriptorsKeepsTheRecord(t *testing.T) {
	dir := t.TempDir()
	p := mustStart(t, dir, shell(dir, "one", "exec sleep 600"))
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	rec := &Process{rec: p.rec, pidfd: -1}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err := rec.find()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.EMFILE) || errors.Is(err, ErrNone) {
		t.Errorf("find = %v, want too many open files", err)
	}
}

func TestAdoptOfDamagedRecord(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.json"), []byte(`{"pid":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(dir, "x"); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("Adopt = %v, want that the record cannot be read", err)
	}
}

func TestStopKillsTheGroup(t *testing.T) {
	tests := []struct {
		name, script string
		grace        time.Duration
	}{
		{"leader obeys", `sleep 600 & sh -c 'sleep 600 & echo $!; echo $$; wait' & echo $!; echo ready; wait`, 10 * time.Second},
		{"leader is deaf", `trap '' TERM; sh -c 'trap "" TERM; sleep 600 & echo $!; wait' & echo $!; echo ready; wait; wait`, 50 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			p := mustStart(t, dir, shell(dir, "tree", tt.script))
			log := filepath.Join(dir, "tree.log")
			var pids []string
			eventually(t, "the tree stands", func() bool {
				pids = lines(t, log)
				return len(pids) >= 3
			})
			if err := p.Stop(t.Context(), syscall.SIGTERM, tt.grace); err != nil {
				t.Fatal(err)
			}
			for _, s := range append(pids, strconv.Itoa(p.PID())) {
				if s == "ready" {
					continue
				}
				pid, err := strconv.Atoi(s)
				if err != nil {
					t.Fatal(err)
				}
				eventually(t, "end of "+s, func() bool {
					_, ended, err := stat(pid)
					return err != nil || ended
				})
			}
		})
	}
}

func TestStopLeavesNoZombie(t *testing.T) {
	dir := t.TempDir()
	p := mustStart(t, dir, shell(dir, "one", "exec sleep 600"))
	if err := p.Stop(t.Context(), syscall.SIGTERM, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", p.PID())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("process %d is still in the table: %v", p.PID(), err)
	}
}

// All that can be called after the end is harmless, in any order and at once.
func TestAfterTheEnd(t *testing.T) {
	dir := t.TempDir()
	before := openFiles(t, "pidfd")
	for range 20 {
		p := mustStart(t, dir, shell(dir, "one", "exec sleep 600"))
		var wg sync.WaitGroup
		for _, f := range []func() error{
			func() error { return p.Stop(t.Context(), syscall.SIGTERM, 10*time.Second) },
			func() error { return p.Stop(t.Context(), syscall.SIGKILL, 10*time.Second) },
			func() error { <-p.Done(); p.Release(); return nil },
			func() error { <-p.Done(); p.KillGroup(); return nil },
			func() error { <-p.Done(); return p.Signal(syscall.SIGHUP) },
		} {
			wg.Go(func() {
				if err := f(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		p.Release()
		if err := p.Stop(t.Context(), syscall.SIGTERM, time.Second); err != nil {
			t.Errorf("Stop after Release = %v, want nil", err)
		}
	}
	// The runtime keeps one of its own.
	if got := openFiles(t, "pidfd"); got > before+1 {
		t.Errorf("open pidfds = %d, were %d", got, before)
	}
}

// Who lets go of a process late does not take the record of its successor along.
func TestReleaseKeepsTheSuccessorsRecord(t *testing.T) {
	dir := t.TempDir()
	old := mustStart(t, dir, shell(dir, "one", "exec sleep 600"))
	if err := syscall.Kill(old.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, old)
	next := mustStart(t, dir, shell(dir, "one", "exec sleep 600"))
	old.Release()
	if pid, err := Running(dir, "one"); pid != next.PID() || err != nil {
		t.Errorf("Running = %d, %v, want %d", pid, err, next.PID())
	}
}

func TestReleaseOfWhatRuns(t *testing.T) {
	dir := t.TempDir()
	p := mustStart(t, dir, shell(dir, "one", "exec sleep 600"))
	p.Release()
	if pid, err := Running(dir, "one"); pid != p.PID() || err != nil {
		t.Errorf("Running = %d, %v, want %d", pid, err, p.PID())
	}
}

func TestFilesComeBack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: pidfd_getfd wants CAP_SYS_PTRACE")
	}
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := mustStart(t, dir, Spec{
		Name: "serve", Path: exe, Env: []string{"PROGRAM=serve"}, Log: filepath.Join(dir, "serve.log"),
		Files: []File{{Name: "web", File: f}},
	})
	address := l.Addr().String()
	_, _ = f.Close(), l.Close() // the holder is gone; only the process has it now
	if got, want := ask(t, address), strconv.Itoa(p.PID()); got != want {
		t.Fatalf("answer = %s, want %s", got, want)
	}
	files, err := mustAdopt(t, dir, "serve").Files()
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || files[0].Name != "web" {
		t.Fatalf("Files = %v, want web", files)
	}
	defer func() { _ = files[0].File.Close() }()
	if err := p.Stop(t.Context(), syscall.SIGKILL, time.Second); err != nil {
		t.Fatal(err)
	}
	back, err := net.FileListener(files[0].File)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = back.Close() }()
	go func() {
		if c, err := back.Accept(); err == nil {
			_, _ = fmt.Fprintln(c, "back")
			_ = c.Close()
		}
	}()
	if got := ask(t, address); got != "back" {
		t.Errorf("answer = %s, want back", got)
	}
}

func ask(t *testing.T, address string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	l, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(l)
}

// What is confined can win nothing, and neither this process nor what it starts otherwise is touched by it.
func TestConfine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: empties the bounding set")
	}
	dir := t.TempDir()
	for i := range 20 { // the threads are used anew meanwhile
		for _, confine := range []bool{true, false} {
			s := shell(dir, fmt.Sprintf("caps-%d-%t", i, confine), `grep -E 'NoNewPrivs|CapBnd|CapPrm|CapEff' /proc/self/status`)
			s.Confine, s.User = confine, "daemon"
			p := mustStart(t, dir, s)
			awaitDone(t, p)
			privs, bounding := "0", ownBounding(t)
			if confine {
				privs, bounding = "1", "0000000000000000"
			}
			want := []string{
				"CapPrm:", "0000000000000000", "CapEff:", "0000000000000000", "CapBnd:", bounding, "NoNewPrivs:", privs,
			}
			if diff := cmp.Diff(want, lines(t, s.Log)); diff != "" {
				t.Fatalf("confine %t (-want +got):\n%s", confine, diff)
			}
			p.Release()
		}
	}
}

// A confined process is the one that is recorded, and is found again.
func TestConfinedIsAdopted(t *testing.T) {
	dir := t.TempDir()
	s := shell(dir, "one", "echo $$; exec sleep 600")
	s.Confine = true
	p := mustStart(t, dir, s)
	eventually(t, "its word", func() bool { return len(lines(t, s.Log)) == 1 })
	if got, want := lines(t, s.Log)[0], strconv.Itoa(p.PID()); got != want {
		t.Errorf("the program's pid = %s, want the recorded %s", got, want)
	}
	if q := mustAdopt(t, dir, "one"); q.PID() != p.PID() {
		t.Errorf("adopted %d, want %d", q.PID(), p.PID())
	}
}

func TestConfineKeepsTheNetworkNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	dir := t.TempDir()
	s := shell(dir, "where", "readlink /proc/self/ns/net")
	s.Confine = true
	runtime.LockOSThread() // never unlocked: the thread ends with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	want, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	awaitDone(t, mustStart(t, dir, s))
	if got := lines(t, s.Log)[0]; got != want {
		t.Errorf("network namespace = %s, want %s", got, want)
	}
}

// ownBounding is the bounding set of the thread that asks.
func ownBounding(t *testing.T) string {
	t.Helper()
	f := lines(t, "/proc/thread-self/status")
	return f[slices.Index(f, "CapBnd:")+1]
}

func TestUserEnvironmentAndMask(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: starts a process as another user")
	}
	dir := t.TempDir()
	t.Setenv("INHERITED", "no")
	before := syscall.Umask(0o022)
	defer syscall.Umask(before)
	s := shell(dir, "who", `id -un; id -Gn; umask; echo "${INHERITED-unset}"; pwd; echo "$GIVEN"`)
	s.User, s.Umask, s.Env = "daemon", 0o027, append(s.Env, "GIVEN=yes")
	awaitDone(t, mustStart(t, dir, s))
	want := []string{"daemon", "daemon", "0027", "unset", "/", "yes"}
	if diff := cmp.Diff(want, lines(t, s.Log)); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	if got := syscall.Umask(0o022); got != 0o022 {
		t.Errorf("own mask = %o, want 022", got)
	}
}

func TestOutputIsAppended(t *testing.T) {
	dir := t.TempDir()
	for _, word := range []string{"one", "two"} {
		p := mustStart(t, dir, shell(dir, "log", "echo "+word+"; echo "+word+"-err >&2"))
		awaitDone(t, p)
		p.Release()
	}
	if diff := cmp.Diff([]string{"one", "one-err", "two", "two-err"}, lines(t, filepath.Join(dir, "log.log"))); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(dir, "log.log"))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got&^0o640 != 0 {
		t.Errorf("mode = %o, wider than 640", got)
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff{Min: time.Millisecond, Max: 4 * time.Millisecond}
	for range 3 {
		if err := b.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if b.next != 4*time.Millisecond {
		t.Errorf("next = %v, want the maximum", b.next)
	}
	b.Reset()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.Min = time.Hour
	if err := b.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait = %v, want canceled", err)
	}
}

func TestRename(t *testing.T) {
	dir := t.TempDir()
	next, old := mustStart(t, dir, shell(dir, "next", "exec sleep 600")), mustStart(t, dir, shell(dir, "main", "exec sleep 600"))
	for _, rename := range []struct {
		p  *Process
		to string
	}{{old, "former"}, {next, "main"}, {next, "main"}} {
		if err := rename.p.Rename(rename.to); err != nil {
			t.Fatal(err)
		}
	}
	if got := mustAdopt(t, dir, "main"); got.PID() != next.PID() {
		t.Errorf("main is %d, want %d", got.PID(), next.PID())
	}
	if _, err := Adopt(dir, "next"); !errors.Is(err, ErrNone) {
		t.Errorf("Adopt of the name before = %v, want ErrNone", err)
	}
	// The end of the former one leaves the other's record alone.
	if err := old.Stop(t.Context(), syscall.SIGKILL, time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(dir, "former"); !errors.Is(err, ErrNone) {
		t.Errorf("Adopt of the former = %v, want ErrNone", err)
	}
	if pid, err := Running(dir, "main"); pid != next.PID() || err != nil {
		t.Errorf("Running = %d, %v, want %d", pid, err, next.PID())
	}
	if err := old.Rename("other"); err == nil {
		t.Error("Rename of what has ended = nil, want an error")
	}
}
