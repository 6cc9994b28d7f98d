package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"trivet/internal/process"
)

// line is a connection that goes on for as long as its client wants.
type line struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

// stay opens a connection that stays open, and returns the pid that serves it.
func (r *rig) stay() (*line, int) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	l := &line{r.t, c, bufio.NewReader(c)}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = fmt.Fprintln(c, "stay")
	text, err := l.r.ReadString('\n')
	if err != nil {
		r.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(text)[0])
	if err != nil {
		r.t.Fatal(err)
	}
	return l, pid
}

// want sends a word and wants it back from pid.
func (l *line) want(pid int, word string) {
	l.t.Helper()
	_, _ = fmt.Fprintln(l.c, word)
	got, err := l.r.ReadString('\n')
	if want := fmt.Sprintln(pid, word); got != want || err != nil {
		l.t.Errorf("over the open connection came %q, %v, want %q", got, err, want)
	}
}

// hammer asks again and again until the returned function is called, which wants that none failed.
func (r *rig) hammer() (asked *atomic.Int64, end func()) {
	asked = new(atomic.Int64)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, _, err := r.ask(); err != nil {
					r.t.Errorf("a connection failed: %v", err)
					return
				}
				asked.Add(1)
			}
		})
	}
	return asked, sync.OnceFunc(func() { close(stop); wg.Wait() })
}

// kill ends what a test leaves retiring.
func (r *rig) kill(w *Worker) {
	for _, p := range w.Status().Retiring {
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestReplace(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	r.cfg.Build = "one"
	w, _ := r.node()
	r.mustApply(w, 1)
	r.awaitHealth(w, "<nil>")
	first := r.pid(w)
	open, server := r.stay()
	if server != first {
		t.Fatalf("served by %d, want %d", server, first)
	}
	asked, end := r.hammer()
	defer end()
	pids := []int{first}
	for i := range 3 {
		w.cfg.Build = fmt.Sprint(i)
		if err := w.Replace(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := w.PID()
		if now == pids[i] {
			t.Fatalf("after Replace %d is in charge, as before", now)
		}
		pids = append(pids, now)
		if got := w.Status(); got.PID != now || got.Build != fmt.Sprint(i) || got.HandOver != "" {
			t.Errorf("Status = %+v, want process %d of build %d", got, now, i)
		}
		r.awaitHealth(w, "<nil>")
		r.mustApply(w, 2+int64(i)) // and only the new one gets it
		r.wantRevision(2 + int64(i))
		before := asked.Load()
		eventually(t, "more connections", func() bool { return asked.Load() > before+20 })
	}
	end()
	open.want(first, "still there?")
	// Those in between had nothing to finish.
	eventually(t, "the end of the second and third", func() bool { return gone(pids[1]) && gone(pids[2]) })
	eventually(t, "only the first to retire", func() bool {
		s := w.Status().Retiring
		return len(s) == 1 && s[0] == Retiring{first, "one"}
	})
	if err := open.c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the first", func() bool { return gone(first) && len(w.Status().Retiring) == 0 })
	left, _ := filepath.Glob(filepath.Join(r.cfg.Records, "*.json"))
	if len(left) != 1 {
		t.Errorf("records = %v, want one", left)
	}
}

// The metrics of the one in charge are under the worker's name, those of the former under its own.
func TestMetricsOfTheFormer(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, _ := r.node()
	r.mustApply(w, 1)
	first := r.pid(w)
	open, _ := r.stay()
	listening := func(name string) int {
		c, err := net.Dial("unix", filepath.Join(r.cfg.MetricsDir, name+".sock"))
		if err != nil {
			return 0
		}
		defer func() { _ = c.Close() }()
		pid, _ := peer(c)
		return pid
	}
	eventually(t, "metrics of the first", func() bool { return listening("probe") == first })
	if err := w.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "metrics of the second", func() bool { return listening("probe") == w.PID() })
	eventually(t, "metrics of the former", func() bool { return listening(retiringName("probe", first)) == first })
	if err := open.c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only the socket of the one in charge", func() bool {
		left, _ := filepath.Glob(filepath.Join(r.cfg.MetricsDir, "*"))
		return len(left) == 1 && listening("probe") == w.PID()
	})
}

func TestReplaceByWhatDoesNotCome(t *testing.T) {
	t.Parallel()
	const script = "#!/bin/sh\n"
	tests := []struct{ name, program, secret, want string }{
		{"ends", script + "echo this build is broken; exit 3\n", "", "the new process ended: exit status 3"},
		{"never calls", script + "while :; do sleep 0.1; done\n", "", "it has not called"},
		{"is not there", "", "", "no such file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "probe")
			w, _ := r.node(func(w *Worker) { w.readyLimit = 2 * time.Second })
			r.mustApply(w, 1)
			r.awaitHealth(w, "<nil>")
			pid := r.pid(w)
			_, end := r.hammer()
			defer end()
			broken := filepath.Join(r.cfg.LogDir, "broken")
			if tt.program != "" {
				if err := os.WriteFile(broken, []byte(tt.program), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			good := w.cfg.Executable
			w.cfg.Executable = broken
			err := w.Replace(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Replace = %v, want %s", err, tt.want)
			}
			end()
			if got := w.Status(); got.PID != pid || got.HandOver != fmt.Sprint(err) {
				t.Errorf("Status = %+v, want %d in charge and why", got, pid)
			}
			r.mustApply(w, 2)
			r.wantRevision(2)
			eventually(t, "the end of the broken one", func() bool { r.kill(w); return len(w.Status().Retiring) == 0 })
			w.cfg.Executable = good
			if err := w.Replace(t.Context()); err != nil || w.Status().HandOver != "" {
				t.Errorf("Replace = %v, %q, want that it goes well now", err, w.Status().HandOver)
			}
		})
	}
}

// One that is not well is no successor of one that is; but it is of one that is not either.
func TestReplaceBySick(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, _ := r.node(func(w *Worker) { w.readyLimit = time.Second })
	r.mustApply(w, 1, "sick=no upstream")
	r.awaitHealth(w, "no upstream")
	pid := r.pid(w)
	if err := w.Replace(t.Context()); err != nil || w.PID() == pid {
		t.Fatalf("Replace = %v, in charge %d, want another than %d", err, w.PID(), pid)
	}
	r.awaitHealth(w, "no upstream")
	r.mustApply(w, 2, "sickafter="+strconv.Itoa(w.PID()))
	r.awaitHealth(w, "<nil>")
	pid = w.PID()
	if err := w.Replace(t.Context()); err == nil || !strings.Contains(err.Error(), "newcomer") || w.PID() != pid {
		t.Errorf("Replace = %v, in charge %d, want that the new one is refused", err, w.PID())
	}
}

// Whoever is killed meanwhile, the worker serves on.
func TestReplaceWhileTheOldDies(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, _ := r.node()
	r.mustApply(w, 1)
	pid := r.pid(w)
	r.mustApply(w, 2, "sickafter="+strconv.Itoa(pid)) // so that the next one is not ready
	done := make(chan error)
	go func() { done <- w.Replace(t.Context()) }()
	eventually(t, "the next process", func() bool { return r.nextPID() != 0 })
	next := r.nextPID()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := w.PID(); got != next {
		t.Errorf("in charge = %d, want %d", got, next)
	}
	r.mustApply(w, 3)
	r.wantRevision(3)
}

func (r *rig) nextPID() int {
	pid, _ := process.Running(r.cfg.Records, "worker-"+r.cfg.Name+"-next")
	return pid
}

// Node is killed before the new process is in charge: the next node ends that one, which drains.
func TestNodeKilledBeforeHandOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	first, end := r.node()
	r.mustApply(first, 1)
	pid := r.pid(first)
	r.mustApply(first, 2, "sickafter="+strconv.Itoa(pid))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = first.Replace(ctx) }()
	eventually(t, "the next process", func() bool { return r.nextPID() != 0 })
	next := r.nextPID()
	cancelled(t, r, first, end)

	_, stop := r.hammer()
	defer stop()
	w, _ := r.node()
	r.mustApply(w, 3)
	if got := r.pid(w); got != pid {
		t.Errorf("in charge = %d, want %d as before", got, pid)
	}
	eventually(t, "the end of the next process", func() bool { return gone(next) && len(w.Status().Retiring) == 0 })
	if err := w.Replace(t.Context()); err != nil {
		t.Error(err)
	}
}

// cancelled ends a node as kill -9 would in the middle of a hand-over: what it does at its end is undone.
func cancelled(t *testing.T, r *rig, w *Worker, end func()) {
	t.Helper()
	next := r.nextPID()
	if err := syscall.Kill(next, syscall.SIGSTOP); err != nil { // so that SIGTERM waits
		t.Fatal(err)
	}
	end()
	from := filepath.Join(r.cfg.Records, w.retiringRecord(next)+".json")
	if err := os.Rename(from, filepath.Join(r.cfg.Records, w.nextRecord()+".json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := syscall.Kill(next, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// Node is killed when the records were half changed: the new process is the one in charge, the old one drains.
func TestNodeKilledDuringHandOver(t *testing.T) {
	t.Parallel()
	for _, renamed := range []bool{false, true} {
		t.Run(fmt.Sprintf("new one recorded %t", renamed), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "probe")
			r.cfg.Listeners = append(r.cfg.Listeners, Listener{Name: "quic", Network: "udp", Address: r.address})
			first, end := r.node()
			r.mustApply(first, 1)
			old := r.pid(first)
			open, _ := r.stay()
			i, err := first.startNext()
			if err != nil {
				t.Fatal(err)
			}
			next := i.p.PID()
			if err := first.ready(t.Context(), i, first.current); err != nil {
				t.Fatal(err)
			}
			if err := first.current.p.Rename(first.retiringRecord(old)); err != nil {
				t.Fatal(err)
			}
			if renamed {
				if err := i.p.Rename(first.record()); err != nil {
					t.Fatal(err)
				}
			}
			end()

			w, _ := r.node()
			r.mustApply(w, 2)
			if got := r.pid(w); got != next {
				t.Errorf("in charge = %d, want %d", got, next)
			}
			eventually(t, "only the new one to accept", func() bool {
				pid, revision, err := r.ask()
				return err == nil && pid == next && revision == 2
			})
			eventually(t, "packets to the new one", func() bool { return r.packet() == next })
			open.want(old, "still there?")
			_ = open.c.Close()
			eventually(t, "the end of the old one", func() bool { return gone(old) && len(w.Status().Retiring) == 0 })
		})
	}
}

// packet sends one and returns the pid that answers, 0 if none does.
func (r *rig) packet() int {
	c, err := net.Dial("udp", r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
	b := make([]byte, 16)
	_, _ = c.Write([]byte("who?"))
	n, err := c.Read(b)
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(string(b[:n]))
	return pid
}

func TestPackets(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	tcp := r.cfg.Listeners
	first, end := r.node()
	r.mustApply(first, 1)
	r.pid(first)
	end()

	// A build that listens on packets too takes over from one that did not.
	r.cfg.Listeners = append(tcp, Listener{Name: "quic", Network: "udp", Address: r.address})
	second, end := r.node()
	r.mustApply(second, 2)
	if got := r.packet(); got != 0 {
		t.Fatalf("%d answers packets, want nobody", got)
	}
	if err := second.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "packets to it", func() bool { return r.packet() == second.PID() })
	pid := second.PID()
	end()
	if got := r.packet(); got != pid {
		t.Errorf("without node %d answers packets, want %d", got, pid)
	}

	// The socket is taken back, and goes on to the next process; only one reads at a time.
	third, _ := r.node()
	r.mustApply(third, 3)
	began := time.Now()
	if err := third.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < packetGrace || took > packetGrace+5*time.Second {
		t.Errorf("Replace took %s; the old one was to be cut off from the packets after %s", took, packetGrace)
	}
	eventually(t, "packets to the new one", func() bool { return r.packet() == third.PID() })
	for range 20 {
		if got := r.packet(); got != third.PID() {
			t.Fatalf("%d answers packets, want only %d", got, third.PID())
		}
	}
}

// The oldest of too many is ended, and so are all when the server stops.
func TestManyFormer(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, end := r.node()
	r.mustApply(w, 1)
	var pids []int
	for range retireLimit + 1 {
		_, pid := r.stay()
		pids = append(pids, pid)
		if err := w.Replace(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the end of the oldest", func() bool { return gone(pids[0]) })
	eventually(t, "no more than may be", func() bool { return len(w.Status().Retiring) == retireLimit })
	end()
	next, end := r.node()
	r.mustApply(next, 2)
	eventually(t, "all of them adopted", func() bool { return len(next.Status().Retiring) == retireLimit })
	end()
	pids = append(pids, next.PID())
	if err := next.Stop(t.Context(), 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if !gone(pid) {
			t.Errorf("%d runs after Stop", pid)
		}
	}
}

// One that cannot run beside another ends first.
func TestReplaceAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	r.cfg.Alone = true
	w, _ := r.node()
	r.mustApply(w, 1)
	r.awaitHealth(w, "<nil>")
	_, end := r.hammer()
	defer end()
	pid := r.pid(w)
	if err := w.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	end()
	if w.PID() == pid || !gone(pid) || len(w.Status().Retiring) != 0 {
		t.Errorf("in charge = %d, want another than %d, which is gone", w.PID(), pid)
	}
	r.wantRevision(1)
	r.awaitHealth(w, "<nil>")
}

// A former process that hangs is not left to itself.
func TestSilentFormerIsEnded(t *testing.T) {
	t.Parallel()
	r := newRig(t, "probe")
	w, _ := r.node(func(w *Worker) { w.silence = 2 * beat })
	r.mustApply(w, 1)
	_, pid := r.stay()
	if err := w.Replace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the silent one", func() bool { return gone(pid) })
}
