package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"trivet/internal/pace"
	"trivet/internal/part"
	"trivet/internal/process"
)

const (
	accessLog     = "access"        // name of the file that Config.Access hands over
	takeBackGrace = 5 * time.Second // for an adopted process that does not give its sockets back
)

// Config says which worker to run and how.
type Config struct {
	Name       string     // of the worker, as in `trivet worker NAME`
	User       string     // it runs as
	Executable string     // the trivet binary
	Listeners  []Listener // opened now or taken back from the running worker
	Access     bool       // hand over LogDir/access-NAME.log as the file "access"
	Records    string     // folder of process records
	ControlDir string     // folder of the control sockets
	LogDir     string     // folder of the log files
	MetricsDir string     // folder of its metrics socket, which only its user may write
	Log        *slog.Logger
	Changed    func() // called when its health changed
	// Answer serves the worker's questions; nil refuses all.
	Answer func(ctx context.Context, method string, body json.RawMessage) (any, error)
}

// Worker is node's half: it keeps one process of the worker running and up to date.
type Worker struct {
	cfg     Config
	silence time.Duration // after which the process is ended
	sockets []socket      // held for as long as node lives; only supervise uses them
	applied chan appliedMessage

	push sync.Mutex // held while a state is written, so that states arrive in their order

	mu      sync.Mutex
	proc    *process.Process
	conn    *conn
	seq     uint64
	state   []byte // the newest, encoded; nil before the first Apply
	problem string
	heard   time.Time
}

// New returns a worker that Run will start.
func New(cfg Config) *Worker {
	return &Worker{cfg: cfg, silence: silence, problem: "starting", applied: make(chan appliedMessage, 1)}
}

// Apply pushes s to the process and waits for its word. A process that is
// started in the meantime gets s as its first state.
func (w *Worker) Apply(ctx context.Context, s part.State) error {
	w.mu.Lock()
	seq := w.seq + 1
	w.mu.Unlock()
	line, err := encode(message{State: &stateMessage{Seq: seq, State: s}})
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.seq, w.state = seq, line
	c := w.conn
	w.mu.Unlock()
	if c != nil {
		w.pushTo(c)
	}
	return w.await(ctx, seq)
}

// pushTo writes the newest state to c. A connection that does not take it is
// closed: the process dials again and then gets the newest state.
func (w *Worker) pushTo(c *conn) {
	w.push.Lock()
	defer w.push.Unlock()
	w.mu.Lock()
	line := w.state
	w.mu.Unlock()
	if line == nil {
		return
	}
	if err := c.write(line); err != nil {
		_ = c.c.Close()
	}
}

// await returns the worker's answer to the state seq.
func (w *Worker) await(ctx context.Context, seq uint64) error {
	for {
		select {
		case a := <-w.applied:
			if a.Seq < seq {
				continue
			}
			if a.Error != "" {
				return errors.New(a.Error)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("worker %s has not applied the state in time: %w", w.cfg.Name, ctx.Err())
		}
	}
}

// Check is the worker's last word on its health.
func (w *Worker) Check(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.problem != "" {
		return errors.New(w.problem)
	}
	return nil
}

// Serving reports whether a process runs that has not fallen silent; how it
// judges its own health is not asked.
func (w *Worker) Serving() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.proc != nil && w.conn != nil && time.Since(w.heard) < 3*beat
}

// PID is the running process's id, 0 if none runs.
func (w *Worker) PID() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.proc == nil {
		return 0
	}
	return w.proc.PID()
}

// Run keeps the process running until ctx ends. The process then goes on by
// itself, for the next node to adopt; Stop ends it.
func (w *Worker) Run(ctx context.Context) error {
	l, err := w.listenControl(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() { w.accept(ctx, l) })
	defer wg.Wait()
	defer func() { _ = l.Close() }()
	return w.supervise(ctx)
}

func (w *Worker) listenControl(ctx context.Context) (net.Listener, error) {
	f, err := Listener{Name: "control", Network: "unix", Address: control(w.cfg.ControlDir, w.cfg.Name)}.open(ctx, w.cfg.User)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return net.FileListener(f)
}

// supervise adopts or starts the process, again and again.
func (w *Worker) supervise(ctx context.Context) error {
	back := process.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		p, err := w.obtain(ctx)
		if err != nil {
			w.report(err.Error())
			w.cfg.Log.Error("start worker", "worker", w.cfg.Name, "err", err)
		} else {
			w.watch(ctx, p, &back)
		}
		if back.Wait(ctx) != nil {
			break
		}
	}
	return nil
}

// watch waits until p has ended, ending it itself if it falls silent.
func (w *Worker) watch(ctx context.Context, p *process.Process, back *process.Backoff) {
	w.mu.Lock()
	w.proc, w.heard = p, time.Now()
	w.mu.Unlock()
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		wait := pace.Next(beat)
		expected := time.Now().Add(wait)
		due.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
			w.ended(p)
			return
		case <-due.C:
			if w.fellSilent(time.Since(expected)) {
				w.cfg.Log.Warn("worker is silent, ending it", "worker", w.cfg.Name, "pid", p.PID())
				p.KillGroup()
			} else if time.Since(p.Started()) > 10*time.Second {
				back.Reset()
			}
		}
	}
}

func (w *Worker) ended(p *process.Process) {
	if p.Err() != nil {
		w.cfg.Log.Warn("worker ended", "worker", w.cfg.Name, "pid", p.PID(), "err", p.Err())
	}
	p.Release()
	w.mu.Lock()
	w.proc = nil
	w.mu.Unlock()
	w.report("its process ended; starting it again")
}

// fellSilent reports at a tick, which came late by so much, whether the process
// has not been heard of for too long. A tick that is far too late says that node
// itself did not run: the machine was suspended, or the server frozen. The
// process was not running then either, so its silence begins anew.
func (w *Worker) fellSilent(late time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if late > 2*beat {
		w.heard = time.Now()
	}
	return time.Since(w.heard) > w.silence
}

// obtain adopts the running process or starts one.
func (w *Worker) obtain(ctx context.Context) (*process.Process, error) {
	p, err := process.Adopt(w.cfg.Records, w.record())
	switch {
	case err == nil:
		return p, w.takeBack(ctx, p)
	case !errors.Is(err, process.ErrNone):
		return nil, err
	}
	if err := w.bind(ctx); err != nil {
		return nil, err
	}
	return w.start()
}

func (w *Worker) record() string { return "worker-" + w.cfg.Name }

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

// bind opens the listeners, once in node's life.
func (w *Worker) bind(ctx context.Context) error {
	if len(w.sockets) > 0 {
		return nil
	}
	var files []process.File
	for _, l := range w.cfg.Listeners {
		f, err := l.open(ctx, w.cfg.User)
		if err != nil {
			closeAll(files)
			return err
		}
		files = append(files, process.File{Name: l.Name, File: f})
	}
	return w.hold(files)
}

// hold keeps the listeners among files, and closes the access log, which each process gets anew.
func (w *Worker) hold(files []process.File) error {
	var sockets []socket
	for i, f := range files {
		if f.Name == accessLog {
			_ = f.File.Close()
			continue
		}
		s, err := keep(f)
		if err != nil {
			closeAll(files[i:])
			for _, s := range sockets {
				_ = syscall.Close(s.fd)
			}
			return fmt.Errorf("keep listener %s: %w", f.Name, err)
		}
		sockets = append(sockets, s)
	}
	w.sockets = sockets
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

func (w *Worker) start() (*process.Process, error) {
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
		Name: w.record(),
		Path: w.cfg.Executable,
		Args: []string{"worker", w.cfg.Name},
		Env: []string{
			"TRIVET_FILES=" + strings.Join(names, ","),
			"TRIVET_CONTROL=" + control(w.cfg.ControlDir, w.cfg.Name),
			"TRIVET_METRICS=" + w.cfg.MetricsDir,
			"GOMEMLIMIT=" + os.Getenv("GOMEMLIMIT"), "GOGC=50", "GOMAXPROCS=2",
			"GOTRACEBACK=single",
		},
		User: w.cfg.User, Confine: true,
		Files: files,
		Log:   filepath.Join(w.cfg.LogDir, w.cfg.Name+".log"),
	})
}

// Stop ends the process: SIGTERM, then after grace SIGKILL.
func (w *Worker) Stop(ctx context.Context, grace time.Duration) error {
	w.mu.Lock()
	p := w.proc
	w.mu.Unlock()
	if p == nil {
		return nil
	}
	return p.Stop(ctx, syscall.SIGTERM, grace)
}
