package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"trivet/internal/part"
	"trivet/internal/process"
)

// The test binary is also the worker: `trivet worker probe` is what Worker starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "worker" {
		fence := Fence{}
		if os.Args[2] == "fenced" {
			fence.Read = []string{filepath.Join(filepath.Dir(os.Getenv("TRIVET_CONTROL")), "inside")}
		}
		if os.Args[2] == "programs" {
			fence = Fence{Read: []string{"/usr", "/bin", "/lib", "/lib64", "/etc"}, Programs: true}
		}
		if err := Serve(context.Background(), os.Args[2], fence, buildProbe); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// probe is a part whose behaviour is in the secrets of its state, and which
// answers every connection with its pid and the revision that it applied.
type probe struct {
	env  *Env
	l    net.Listener
	mu   sync.Mutex
	last part.State

	packets *PacketConn // may be nil
}

func buildProbe(e *Env) (part.Part, error) {
	l, err := e.Listener("web")
	if err != nil {
		return nil, err
	}
	// What a worker opens later must not get the number of what it was handed.
	if _, err := os.Open("/dev/null"); err != nil {
		return nil, err
	}
	p := &probe{env: e, l: l}
	if c, err := e.PacketConn("quic"); err == nil {
		p.packets = c
	}
	return p, nil
}

func (p *probe) Apply(ctx context.Context, s part.State) error {
	if path := s.Secrets["open"]; path != "" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_ = f.Close()
	}
	if program := s.Secrets["run"]; program != "" {
		if _, err := os.StartProcess(program, []string{program}, &os.ProcAttr{}); err != nil {
			return err
		}
	}
	if s.Secrets["calls"] != "" {
		return p.tryCalls(s.Secrets["calls"] == "programs")
	}
	if method := s.Secrets["ask"]; method != "" {
		var answer string
		if err := p.env.Call(ctx, method, "question", &answer); err != nil {
			return err
		}
		if answer != "answer" {
			return fmt.Errorf("answer %q", answer)
		}
	}
	if why := s.Secrets["refuse"]; why != "" {
		return errors.New(why)
	}
	if s.Secrets["slow"] != "" {
		time.Sleep(100 * time.Millisecond) // work that takes long
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = s
	return nil
}

// tryCalls makes system calls with arguments that are harmless, and says which were not refused.
// Where programs may be run, what starts them is not tried.
func (p *probe) tryCalls(programs bool) error {
	var problems []error
	for name, call := range map[string][]uintptr{
		"execve": {unix.SYS_EXECVE}, "unshare": {unix.SYS_UNSHARE}, "ptrace": {unix.SYS_PTRACE, ^uintptr(0)},
		"bpf": {unix.SYS_BPF, ^uintptr(0)}, "clone of a process": {unix.SYS_CLONE, unix.CLONE_SIGHAND}, "mount": {unix.SYS_MOUNT},
		"io_uring_setup": {unix.SYS_IO_URING_SETUP}, "x32 getpid": {0x40000000 | unix.SYS_GETPID},
	} {
		if programs && (name == "execve" || strings.HasPrefix(name, "clone")) {
			continue
		}
		call = append(call, 0)
		_, _, errno := unix.RawSyscall(call[0], call[1], 0, 0)
		if errno != unix.EPERM {
			problems = append(problems, fmt.Errorf("%s: %w", name, errno))
		}
	}
	return errors.Join(problems...)
}

// Run drains connections that go on until the client ends them.
func (p *probe) Run(ctx context.Context) error {
	context.AfterFunc(ctx, func() { _ = p.l.Close() })
	var open sync.WaitGroup
	defer open.Wait()
	if p.packets != nil {
		open.Go(func() { p.echo(ctx) })
	}
	for {
		c, err := p.l.Accept()
		if err != nil {
			return nil
		}
		open.Go(func() { p.serve(c) })
	}
}

// serve says who serves; a client that says "stay" gets its further lines back.
func (p *probe) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	p.mu.Lock()
	revision := p.last.Revision
	p.mu.Unlock()
	_, _ = fmt.Fprintln(c, os.Getpid(), revision)
	lines := bufio.NewScanner(c)
	if !lines.Scan() || lines.Text() != "stay" {
		return
	}
	for lines.Scan() {
		_, _ = fmt.Fprintln(c, os.Getpid(), lines.Text())
	}
}

// echo answers each packet with the pid; from the end of ctx it goes on for as long as it may.
func (p *probe) echo(ctx context.Context) {
	select {
	case <-p.packets.Turn():
	case <-ctx.Done():
		return
	}
	b := make([]byte, 64)
	for {
		_, from, err := p.packets.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = fmt.Fprint(packetWriter{p.packets, from}, os.Getpid())
	}
}

type packetWriter struct {
	c  net.PacketConn
	to net.Addr
}

func (w packetWriter) Write(b []byte) (int, error) { return w.c.WriteTo(b, w.to) }

func (p *probe) Check(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if why := p.last.Secrets["sick"]; why != "" {
		return errors.New(why)
	}
	if well := p.last.Secrets["sickafter"]; well != "" && well != strconv.Itoa(os.Getpid()) {
		return errors.New("a newcomer is never well")
	}
	if p.last.Revision == 0 {
		return errors.New("no state yet")
	}
	return nil
}

// Inspect shows the revision, after as long as the state says.
func (p *probe) Inspect(ctx context.Context) (any, error) {
	p.mu.Lock()
	s := p.last
	p.mu.Unlock()
	switch s.Secrets["inspect"] {
	case "never":
		<-ctx.Done()
		return nil, ctx.Err()
	case "large":
		return strings.Repeat("x", frameLimit), nil
	case "refuse":
		return nil, errors.New("not today")
	}
	return map[string]int64{"revision": s.Revision}, nil
}

// rig is where the nodes of one test find what they share.
type rig struct {
	t       *testing.T
	cfg     Config
	address string
}

func newRig(t *testing.T, name string) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: starts processes as another user and takes descriptors back")
	}
	// Not t.TempDir: its path is too long for a socket, and closed to the worker's user.
	dir, err := os.MkdirTemp("", "trivet-worker-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, d := range []string{"metrics", "inside"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for path, mode := range map[string]os.FileMode{"": 0o755, "metrics": 0o777, "inside": 0o755} {
		if err := os.Chmod(filepath.Join(dir, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, address: address, cfg: Config{
		Name: name, User: "daemon", Executable: program(t, dir), Listeners: []Listener{{Name: "web", Network: "tcp", Address: address}},
		Access: true, Records: dir, ControlDir: dir, LogDir: dir, MetricsDir: filepath.Join(dir, "metrics"),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}}
	t.Cleanup(r.end)
	return r
}

// program copies the test binary to where the worker's user may run it.
func program(t *testing.T, dir string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "trivet")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// end ends what the test's last node left running.
func (r *rig) end() {
	if r.t.Failed() {
		log, _ := os.ReadFile(filepath.Join(r.cfg.LogDir, r.cfg.Name+".log"))
		r.t.Logf("the worker's log:\n%s", log)
	}
	records, _ := filepath.Glob(filepath.Join(r.cfg.Records, "worker-*.json"))
	for _, record := range records {
		p, err := process.Adopt(r.cfg.Records, strings.TrimSuffix(filepath.Base(record), ".json"))
		if err == nil {
			_ = p.Stop(context.Background(), syscall.SIGKILL, time.Second)
		}
	}
}

// node runs a node's half and returns it with what ends it.
func (r *rig) node(change ...func(*Worker)) (*Worker, func()) {
	r.t.Helper()
	w := New(r.cfg)
	for _, c := range change {
		c(w)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	end := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run = %v, want nil", err)
		}
		for _, s := range w.sockets {
			s.close() // as the end of node's process would
		}
	})
	r.t.Cleanup(end)
	return w, end
}

func (r *rig) apply(w *Worker, revision int64, secrets ...string) error {
	s := part.State{Revision: revision, Secrets: map[string]string{}}
	for _, kv := range secrets {
		k, v, _ := strings.Cut(kv, "=")
		s.Secrets[k] = v
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	return w.Apply(ctx, s)
}

func (r *rig) mustApply(w *Worker, revision int64, secrets ...string) {
	r.t.Helper()
	if err := r.apply(w, revision, secrets...); err != nil {
		r.t.Fatal(err)
	}
}

// pid of the worker's process, once node has noted it.
func (r *rig) pid(w *Worker) int {
	r.t.Helper()
	eventually(r.t, "a process", func() bool { return w.PID() != 0 })
	return w.PID()
}

// ask connects to the worker and returns the pid and the revision that answered.
func (r *rig) ask() (pid int, revision int64, err error) {
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	l, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscan(l, &pid, &revision)
	return pid, revision, err
}

func (r *rig) wantRevision(want int64) {
	r.t.Helper()
	if _, got, err := r.ask(); got != want || err != nil {
		r.t.Errorf("revision = %d, %v, want %d", got, err, want)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond) // between looks, not instead of one
	}
}

func (r *rig) awaitHealth(w *Worker, want string) {
	r.t.Helper()
	var got error
	eventually(r.t, "health "+want, func() bool {
		got = w.Check(r.t.Context())
		return fmt.Sprint(got) == want
	})
}

func TestApply(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, _ := r.node()
	r.mustApply(w, 1)
	r.wantRevision(1)
	r.awaitHealth(w, "<nil>")

	if err := r.apply(w, 2, "refuse=the moon is full"); err == nil || err.Error() != "the moon is full" {
		t.Errorf("Apply = %v, want the worker's own word", err)
	}
	r.wantRevision(1)

	r.mustApply(w, 3, "sick=no upstream")
	r.awaitHealth(w, "no upstream")
	r.mustApply(w, 4)
	r.awaitHealth(w, "<nil>")
}

func TestNewestStateWins(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, _ := r.node()
	r.mustApply(w, 1, "slow=yes")
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody waits for the outcome of these
	for i := range int64(20) {
		_ = w.Apply(ctx, part.State{Revision: 2 + i, Secrets: map[string]string{"slow": "yes"}})
	}
	began := time.Now()
	r.mustApply(w, 100)
	r.wantRevision(100)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the newest state took %s: older ones were applied before it", took)
	}
}

func TestHealthIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	var told atomic.Int32
	r.cfg.Changed = func() { told.Add(1) }
	w, _ := r.node()
	r.mustApply(w, 1)
	r.awaitHealth(w, "<nil>")
	before := told.Load()
	r.mustApply(w, 2, "sick=yes")
	eventually(t, "word of the change", func() bool { return told.Load() > before })
}

func TestQuestions(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	r.cfg.Answer = func(_ context.Context, method string, body json.RawMessage) (any, error) {
		if method != "redeem" || string(body) != `"question"` {
			return nil, fmt.Errorf("%s(%s) is not known", method, body)
		}
		return "answer", nil
	}
	w, _ := r.node()
	r.mustApply(w, 1, "ask=redeem")
	if err := r.apply(w, 2, "ask=other"); err == nil || !strings.Contains(err.Error(), "is not known") {
		t.Errorf("Apply = %v, want that the method is not known", err)
	}
}

func TestQuestionsWithoutAnswers(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, _ := r.node()
	if err := r.apply(w, 1, "ask=redeem"); err == nil || !strings.Contains(err.Error(), "no questions") {
		t.Errorf("Apply = %v, want that no questions are answered", err)
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, _ := r.node()
	if _, err := w.Inspect(t.Context()); err == nil && w.PID() == 0 {
		t.Error("Inspect = nil, want that it is not running")
	}
	r.mustApply(w, 7)
	if got, err := w.Inspect(t.Context()); string(got) != `{"revision":7}` || err != nil {
		t.Errorf("Inspect = %s, %v, want revision 7", got, err)
	}
	for i, tt := range []struct{ how, want string }{{"refuse", "not today"}, {"large", "over the limit"}, {"never", "deadline exceeded"}} {
		r.mustApply(w, 8+int64(i), "inspect="+tt.how)
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if tt.how == "large" {
			ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
		}
		if _, err := w.Inspect(ctx); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Inspect = %v, want %s", err, tt.want)
		}
		cancel()
	}
	// One that hangs holds up neither states nor health.
	r.mustApply(w, 20)
	r.awaitHealth(w, "<nil>")
}

func TestStateOverTheLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, _ := r.node()
	r.mustApply(w, 1)
	pid := r.pid(w)
	if err := r.apply(w, 2, "big="+strings.Repeat("x", frameLimit)); err == nil || !strings.Contains(err.Error(), "over the limit") {
		t.Errorf("Apply = %v, want that it is over the limit", err)
	}
	r.wantRevision(1)
	r.mustApply(w, 3, "big="+strings.Repeat("x", frameLimit/2))
	if w.PID() != pid {
		t.Errorf("pid = %d, want still %d", w.PID(), pid)
	}
}

// While the process is killed again and again, every connection is taken, by the old or the new one.
func TestKilledWorkerRefusesNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, _ := r.node()
	r.mustApply(w, 1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var dialled atomic.Int64
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.Dial("tcp", r.address)
			if err != nil {
				t.Errorf("connection refused: %v", err)
				return
			}
			dialled.Add(1)
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			_, _ = bufio.NewReader(c).ReadString('\n') // cut off if it was already accepted
			_ = c.Close()
		}
	})
	for range 3 {
		old := r.pid(w)
		before := dialled.Load()
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another process", func() bool { return w.PID() != 0 && w.PID() != old })
		r.awaitHealth(w, "<nil>")
		eventually(t, "more connections", func() bool { return dialled.Load() > before+5 })
	}
	close(stop)
	wg.Wait()
	r.wantRevision(1) // it got the state without another Apply
}

func TestNextNodeAdopts(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	first, end := r.node()
	r.mustApply(first, 1)
	pid := r.pid(first)
	end()
	if got, revision, err := r.ask(); got != pid || revision != 1 || err != nil {
		t.Fatalf("without node: process %d, revision %d, %v, want %d, 1", got, revision, err, pid)
	}

	// Three times: what is taken back is handed on.
	for i := range int64(3) {
		w, end := r.node()
		r.mustApply(w, 2+i)
		if got := r.pid(w); got != pid {
			t.Fatalf("pid = %d, want still %d", got, pid)
		}
		if i == 1 {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			// The socket is held by the adopting node alone now.
			if _, revision, err := r.ask(); revision != 3 && revision != 0 || err != nil {
				t.Errorf("revision = %d, %v, want an answer of the restarted process", revision, err)
			}
			r.awaitHealth(w, "<nil>")
			pid = r.pid(w)
		}
		if got, want := handed(t, pid), "web,access"; got != want {
			t.Errorf("files of the process = %s, want %s", got, want)
		}
		end()
	}
}

// Node keeps the sockets without being woken by every connection to them.
func TestKeptSocketsWakeNobody(t *testing.T) {
	r := newRig(t, "probe")
	first, end := r.node()
	r.mustApply(first, 1)
	unwatched(t, first.sockets)
	end()
	next, _ := r.node()
	r.mustApply(next, 2)
	unwatched(t, next.sockets)
}

// unwatched looks for the sockets among what this process's epoll descriptors watch (proc(5), fdinfo).
func unwatched(t *testing.T, sockets []socket) {
	t.Helper()
	if len(sockets) != 1 {
		t.Fatalf("%d sockets are kept, want 1", len(sockets))
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(sockets[0].fd, &st); err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	polls := 0
	for _, fd := range fds {
		if what, _ := os.Readlink("/proc/self/fd/" + fd.Name()); what != "anon_inode:[eventpoll]" {
			continue
		}
		info, err := os.ReadFile("/proc/self/fdinfo/" + fd.Name())
		if err != nil {
			t.Fatal(err)
		}
		polls++
		if strings.Contains(string(info), fmt.Sprintf("ino:%x ", st.Ino)) {
			t.Errorf("epoll watches the kept socket:\n%s", info)
		}
	}
	if polls == 0 {
		t.Fatal("no epoll descriptor was found: the test would prove nothing")
	}
}

// handed is the list of files that the process was told of.
func handed(t *testing.T, pid int) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	for kv := range strings.SplitSeq(string(data), "\x00") {
		if v, ok := strings.CutPrefix(kv, "TRIVET_FILES="); ok {
			return v
		}
	}
	return ""
}

// A running process whose sockets cannot be had is replaced, not left without a supervisor.
func TestAdoptOfWhatGivesNothingBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	p, err := process.Start(r.cfg.Records, process.Spec{
		Name: "worker-probe", Path: "/bin/sh", Args: []string{"-c", "exec 3<&-; echo closed; while :; do read x; done"},
		Files: []process.File{{Name: "web", File: null}}, Log: filepath.Join(r.cfg.LogDir, "deaf.log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the closing of its descriptor", func() bool {
		log, _ := os.ReadFile(filepath.Join(r.cfg.LogDir, "deaf.log"))
		return len(log) > 0
	})
	w, _ := r.node()
	r.mustApply(w, 1)
	if got := r.pid(w); got == p.PID() {
		t.Errorf("pid = %d, want another process", got)
	}
	r.wantRevision(1)
}

func TestSilentWorkerIsEnded(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, _ := r.node(func(w *Worker) { w.silence = beat + time.Second })
	r.mustApply(w, 1)
	pid := r.pid(w)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another process", func() bool { return w.PID() != 0 && w.PID() != pid })
	r.awaitHealth(w, "<nil>")
	r.wantRevision(1)
}

// Silence is counted while node itself runs: what was frozen together with it is not ended for it.
func TestSilenceOfTheFrozenDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(Config{})
		i := newInstance(nil)
		for _, tick := range []struct {
			after, late time.Duration
			want        bool
		}{
			{beat, 0, false},
			{time.Minute, time.Minute - beat, false}, // thawed
			{silence - beat, 0, false},
			{beat + time.Second, time.Second, true}, // a busy machine is no excuse
			{time.Minute, time.Minute - beat, false},
			{silence + beat, 2 * beat, true},
		} {
			time.Sleep(tick.after) // of the bubble's own clock
			if got := w.fellSilent(i, tick.late); got != tick.want {
				t.Errorf("%s later, at a tick %s late: silent = %t, want %t", tick.after, tick.late, got, tick.want)
			}
		}
	})
}

func TestStop(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, end := r.node()
	r.mustApply(w, 1)
	end()
	for range 2 {
		if err := w.Stop(t.Context(), 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := process.Running(r.cfg.Records, "worker-probe"); !errors.Is(err, process.ErrNone) {
		t.Errorf("Running = %v, want ErrNone", err)
	}
	if log, _ := os.ReadFile(filepath.Join(r.cfg.LogDir, "probe.log")); len(log) > 0 {
		t.Errorf("it did not end quietly:\n%s", log)
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	l, err := net.Listen("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	w, _ := r.node()
	eventually(t, "a word about the port", func() bool {
		return strings.Contains(fmt.Sprint(w.Check(t.Context())), "address already in use")
	})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r.mustApply(w, 1)
}

func TestFence(t *testing.T) {
	t.Parallel()
	if !landlocked() {
		t.Skip("needs Landlock: this kernel has none, or it is off")
	}
	r := newRig(t, "fenced")
	inside, outside := filepath.Join(r.cfg.ControlDir, "inside", "file"), filepath.Join(r.cfg.ControlDir, "outside")
	for _, path := range []string{inside, outside} {
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w, _ := r.node()
	r.mustApply(w, 1, "open="+inside)
	if err := r.apply(w, 2, "open="+outside); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("open of %s = %v, want permission denied", outside, err)
	}
}

// On every thread, whoever took the worker over can run no program and make no process.
func TestFilter(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, _ := r.node()
	for i := range int64(20) {
		if err := r.apply(w, 2*i+1, "run=/bin/true"); err == nil || !strings.Contains(err.Error(), "operation not permitted") {
			t.Fatalf("run of a program = %v, want that it is not permitted", err)
		}
		r.mustApply(w, 2*i+2, "calls=yes")
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.pid(w)))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapBnd:\t0000000000000000\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the process's status lacks %q:\n%s", want, status)
		}
	}
}

// A worker that may run programs runs those of the system and no others, and is
// refused all else that a worker is.
func TestPrograms(t *testing.T) {
	t.Parallel()
	r := newRig(t, "programs")
	w, _ := r.node()
	r.mustApply(w, 1, "run=/bin/true")
	r.mustApply(w, 2, "calls=programs")
	if !landlocked() {
		t.Skip("needs Landlock for the rest")
	}
	other := filepath.Join(r.cfg.ControlDir, "inside", "true")
	data, err := os.ReadFile("/bin/true")
	if err == nil {
		err = os.WriteFile(other, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := r.apply(w, 3, "run="+other); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("run of another program = %v, want permission denied", err)
	}
}

// landlocked asks for the ABI version of landlock(7): landlock_create_ruleset(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION).
func landlocked() bool {
	const version = 1
	v, _, errno := syscall.Syscall(444, 0, 0, version)
	return errno == 0 && v >= 1
}

func TestServeByHand(t *testing.T) {
	t.Setenv("TRIVET_CONTROL", "")
	if err := Serve(t.Context(), "probe", Fence{}, buildProbe); err == nil {
		t.Error("Serve = nil, want that a worker is started by node")
	}
}

func TestListenerOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives sockets to users")
	}
	dir, err := os.MkdirTemp("", "trivet-socket-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	tests := []struct {
		group string
		gid   uint32
		mode  os.FileMode
	}{
		{"", 1, 0o600},
		{"bin", 2, 0o660},
	}
	for _, tt := range tests {
		t.Run("group "+tt.group, func(t *testing.T) {
			path := filepath.Join(dir, "s")
			for range 2 { // the second replaces the first
				f, err := Listener{Name: "s", Network: "unix", Address: path, Group: tt.group}.open(t.Context(), "daemon")
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = f.Close() }()
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			st := info.Sys().(*syscall.Stat_t)
			if st.Uid != 1 || st.Gid != tt.gid || info.Mode().Perm() != tt.mode {
				t.Errorf("owner, mode = %d:%d, %o, want 1:%d, %o", st.Uid, st.Gid, info.Mode().Perm(), tt.gid, tt.mode)
			}
		})
	}
}
