package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"trivet/internal/pace"
	"trivet/internal/process"
)

const (
	accessLog     = "access"        // name of the file that Config.Access hands over
	takeBackGrace = 5 * time.Second // for an adopted process that does not give its sockets back
)

// supervise adopts or starts the process, again and again.
func (w *Worker) supervise(ctx context.Context) error {
	defer w.former.Wait()
	w.adoptFormer(ctx)
	back := process.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		i, err := w.obtain(ctx)
		if err != nil {
			w.report(nil, err.Error())
			w.cfg.Log.Error("start worker", "worker", w.cfg.Name, "err", err)
		}
		for i != nil {
			i = w.watch(ctx, i, &back)
		}
		if back.Wait(ctx) != nil {
			break
		}
	}
	return nil
}

// watch waits until i has ended, ending it itself if it falls silent. It
// returns the process that has taken over from i, if one has.
func (w *Worker) watch(ctx context.Context, i *instance, back *process.Backoff) *instance {
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		wait := pace.Next(beat)
		expected := time.Now().Add(wait)
		due.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-i.p.Done():
			w.ended(i)
			return nil
		case done := <-w.orders:
			if now := w.replace(ctx, i, done); now != i {
				return now
			}
		case <-due.C:
			if w.fellSilent(i, time.Since(expected)) {
				w.cfg.Log.Warn("worker is silent, ending it", "worker", w.cfg.Name, "pid", i.p.PID())
				i.p.KillGroup()
			} else if time.Since(i.p.Started()) > 10*time.Second {
				back.Reset()
			}
		}
	}
}

func (w *Worker) ended(i *instance) {
	if i.p.Err() != nil {
		w.cfg.Log.Warn("worker ended", "worker", w.cfg.Name, "pid", i.p.PID(), "err", i.p.Err())
	}
	i.p.Release()
	w.empty("its process ended; starting it again")
}

// empty notes that no process is in charge.
func (w *Worker) empty(why string) {
	w.mu.Lock()
	w.current = nil
	w.mu.Unlock()
	w.report(nil, why)
}

// fellSilent reports at a tick, which came late by so much, whether i has not
// been heard of for too long. A tick that is far too late says that node itself
// did not run: the machine was suspended, or the server frozen. The process was
// not running then either, so its silence begins anew.
func (w *Worker) fellSilent(i *instance, late time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if late > 2*beat {
		i.heard = time.Now()
	}
	return time.Since(i.heard) > w.silence
}

// obtain adopts the running process or starts one.
func (w *Worker) obtain(ctx context.Context) (*instance, error) {
	i, err := w.adopt(ctx)
	if !errors.Is(err, process.ErrNone) {
		return i, err
	}
	if err := w.bind(ctx); err != nil {
		return nil, err
	}
	return w.start()
}

func (w *Worker) adopt(ctx context.Context) (*instance, error) {
	w.births.Lock()
	defer w.births.Unlock()
	p, err := process.Adopt(w.cfg.Records, w.record())
	if err != nil {
		return nil, err
	}
	if err := w.takeBack(ctx, p); err != nil {
		return nil, err
	}
	return w.install(p), nil
}

// takeBack makes the process's own listening sockets node's too. A process
// that does not give them could not be restarted without refusing connections
// and holds the ports that another needs, so it is ended.
func (w *Worker) takeBack(ctx context.Context, p *process.Process) error {
	if len(w.sockets) == 0 {
		files, err := p.Files()
		if err == nil {
			err = w.hold(files)
		}
		if err != nil {
			return errors.Join(err, p.Stop(ctx, syscall.SIGTERM, takeBackGrace))
		}
	}
	w.cfg.Log.Info("adopted worker", "worker", w.cfg.Name, "pid", p.PID())
	return nil
}

// bind opens the listeners that are not held yet: once in node's life, and
// before a hand-over those that the build of an adopted process did not know.
func (w *Worker) bind(ctx context.Context) error {
	var files []process.File
	for _, l := range w.cfg.Listeners {
		if slices.ContainsFunc(w.sockets, func(s socket) bool { return s.name == l.Name }) {
			continue
		}
		f, err := l.open(ctx, w.cfg.User)
		if err != nil {
			closeAll(files)
			return err
		}
		files = append(files, process.File{Name: l.Name, File: f})
	}
	return w.hold(files)
}

// hold keeps the listeners among files, and closes the rest: the access log,
// which each process gets anew, and what this build listens on no more.
func (w *Worker) hold(files []process.File) error {
	var sockets []socket
	for i, f := range files {
		if !slices.ContainsFunc(w.cfg.Listeners, func(l Listener) bool { return l.Name == f.Name }) {
			_ = f.File.Close()
			continue
		}
		s, err := keep(f)
		if err != nil {
			closeAll(files[i:])
			for _, s := range sockets {
				s.close()
			}
			return fmt.Errorf("keep listener %s: %w", f.Name, err)
		}
		sockets = append(sockets, s)
	}
	w.sockets = append(w.sockets, sockets...)
	return nil
}

func closeAll(files []process.File) {
	for _, f := range files {
		_ = f.File.Close()
	}
}

// files are what the process is started with; the caller closes them.
func (w *Worker) files() ([]process.File, error) {
	var files []process.File
	for _, s := range w.sockets {
		f, err := s.lend()
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	if !w.cfg.Access {
		return files, nil
	}
	path := filepath.Join(w.cfg.LogDir, "access-"+w.cfg.Name+".log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		closeAll(files)
		return nil, fmt.Errorf("open access log: %w", err)
	}
	return append(files, process.File{Name: accessLog, File: f}), nil
}

// start starts the process in charge.
func (w *Worker) start() (*instance, error) {
	w.births.Lock()
	defer w.births.Unlock()
	p, err := w.launch(w.record(), "")
	if err != nil {
		return nil, err
	}
	return w.install(p), nil
}

// install makes p the process in charge; births is held.
func (w *Worker) install(p *process.Process) *instance {
	i := newInstance(p)
	i.turn = true
	w.mu.Lock()
	w.current = i
	w.mu.Unlock()
	return i
}

// launch starts a process and records it. Its turn is empty or waitTurn.
func (w *Worker) launch(record, turn string) (*process.Process, error) {
	files, err := w.files()
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	return process.Start(w.cfg.Records, process.Spec{
		Name: record,
		Path: w.cfg.Executable,
		Args: []string{"worker", w.cfg.Name},
		Env: []string{
			"TRIVET_FILES=" + strings.Join(names, ","),
			"TRIVET_CONTROL=" + control(w.cfg.ControlDir, w.cfg.Name),
			"TRIVET_METRICS=" + w.cfg.MetricsDir,
			"TRIVET_TURN=" + turn,
			"GOMEMLIMIT=" + memoryLimit(), "GOGC=" + strconv.Itoa(cmp.Or(w.cfg.GC, 50)), "GOMAXPROCS=2",
			"GOTRACEBACK=single",
		},
		User: w.cfg.User, Confine: true,
		Files: files,
		Log:   filepath.Join(w.cfg.LogDir, w.cfg.Name+".log"),
		Note:  w.cfg.Build,
	})
}

// memoryLimit is from how much memory on the process collects its garbage harder:
// node's own setting, else a quarter of the machine's, within bounds.
func memoryLimit() string {
	if set := os.Getenv("GOMEMLIMIT"); set != "" {
		return set
	}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) != nil {
		return ""
	}
	return strconv.FormatUint(boundMemory(uint64(info.Totalram)*uint64(info.Unit)), 10)
}

// boundMemory is what a worker may use of a machine's total, in bytes.
func boundMemory(total uint64) uint64 { return min(max(total/4, 128<<20), 1<<30) }
