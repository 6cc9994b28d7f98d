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

	"trivet/internal/part"
	"trivet/internal/process"
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
	Log        *slog.Logger
	Changed    func() // called when its health changed
	// Answer serves the worker's questions; nil refuses all.
	Answer func(ctx context.Context, method string, body json.RawMessage) (any, error)
}

// Worker is node's half: it keeps one process of the worker running and up to date.
type Worker struct {
	cfg Config

	mu      sync.Mutex
	files   []process.File // the listening sockets, held for as long as node lives
	proc    *process.Process
	conn    *conn
	seq     uint64
	state   *part.State
	applied chan appliedMessage
	problem string
	heard   time.Time
}

// New returns a worker that Run will start.
func New(cfg Config) *Worker {
	return &Worker{cfg: cfg, problem: "starting", applied: make(chan appliedMessage, 1)}
}

// Apply pushes s to the process and waits for its word. While no process is
// connected it only remembers s, which is then the first thing a process gets.
func (w *Worker) Apply(ctx context.Context, s part.State) error {
	w.mu.Lock()
	w.seq++
	seq, c := w.seq, w.conn
	w.state = &s
	w.mu.Unlock()
	if c == nil {
		return nil
	}
	if err := c.send(message{State: &stateMessage{Seq: seq, State: s}}); err != nil {
		_ = c.c.Close() // it will dial again and get the newest state
		return nil
	}
	return w.await(ctx, seq)
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
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.Done():
			w.ended(p)
			return
		case <-tick.C:
			if w.silentFor() > silence {
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

func (w *Worker) silentFor() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.heard)
}

// obtain adopts the running process or starts one.
func (w *Worker) obtain(ctx context.Context) (*process.Process, error) {
	p, err := process.Adopt(w.cfg.Records, w.record())
	if err == nil {
		if err := w.takeBack(p); err != nil {
			return nil, err
		}
		w.cfg.Log.Info("adopted worker", "worker", w.cfg.Name, "pid", p.PID())
		return p, nil
	}
	if !errors.Is(err, process.ErrNone) {
		return nil, err
	}
	if err := w.bind(ctx); err != nil {
		return nil, err
	}
	return w.start()
}

func (w *Worker) record() string { return "worker-" + w.cfg.Name }

// takeBack makes the process's own listening sockets node's too.
func (w *Worker) takeBack(p *process.Process) error {
	if len(w.files) > 0 {
		return nil
	}
	files, err := p.Files()
	if err != nil {
		return err
	}
	w.files = files
	return nil
}

// bind opens the listeners, once in node's life.
func (w *Worker) bind(ctx context.Context) error {
	if len(w.files) > 0 {
		return nil
	}
	var files []process.File
	for _, l := range w.cfg.Listeners {
		f, err := l.open(ctx, w.cfg.User)
		if err != nil {
			for _, f := range files {
				_ = f.File.Close()
			}
			return err
		}
		files = append(files, process.File{Name: l.Name, File: f})
	}
	w.files = files
	return nil
}

func (w *Worker) start() (*process.Process, error) {
	files := w.files
	if w.cfg.Access {
		path := filepath.Join(w.cfg.LogDir, "access-"+w.cfg.Name+".log")
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, fmt.Errorf("open access log: %w", err)
		}
		defer func() { _ = f.Close() }()
		files = append(files[:len(files):len(files)], process.File{Name: "access", File: f})
	}
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
			"GOMEMLIMIT=" + os.Getenv("GOMEMLIMIT"), "GOGC=50", "GOMAXPROCS=2",
			"GOTRACEBACK=single",
		},
		User:  w.cfg.User,
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

// accept serves the worker's connections, one at a time: a newer one replaces the older.
func (w *Worker) accept(ctx context.Context, l net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { w.converse(ctx, newConn(c)) })
	}
}

// converse reads one connection to its end.
func (w *Worker) converse(ctx context.Context, c *conn) {
	stop := context.AfterFunc(ctx, func() { _ = c.c.Close() })
	defer stop()
	defer w.disconnect(c)
	w.connect(c)
	for {
		m, err := c.receive()
		if err != nil {
			return
		}
		w.handle(ctx, c, m)
	}
}

// connect makes c the current connection and sends it the newest state.
func (w *Worker) connect(c *conn) {
	w.mu.Lock()
	old := w.conn
	w.conn = c
	var first *stateMessage
	if w.state != nil {
		first = &stateMessage{Seq: w.seq, State: *w.state}
	}
	w.mu.Unlock()
	if old != nil {
		_ = old.c.Close()
	}
	if first != nil {
		_ = c.send(message{State: first})
	}
}

func (w *Worker) disconnect(c *conn) {
	_ = c.c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn == c {
		w.conn = nil
	}
}

func (w *Worker) handle(ctx context.Context, c *conn, m message) {
	w.mu.Lock()
	w.heard = time.Now()
	w.mu.Unlock()
	switch {
	case m.Applied != nil:
		w.confirm(*m.Applied)
	case m.Health != nil:
		w.report(m.Health.Problem)
	case m.Call != nil:
		_ = c.send(message{Answer: w.answer(ctx, *m.Call)})
	}
}

// confirm leaves the newest confirmation for await, dropping one nobody read.
func (w *Worker) confirm(a appliedMessage) {
	select {
	case <-w.applied:
	default:
	}
	select {
	case w.applied <- a:
	default:
	}
	if a.Error != "" {
		w.cfg.Log.Error("worker refused state", "worker", w.cfg.Name, "err", a.Error)
	}
}

func (w *Worker) answer(ctx context.Context, c callMessage) *answerMessage {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	a := &answerMessage{ID: c.ID}
	if w.cfg.Answer == nil {
		a.Error = "no questions are answered here"
		return a
	}
	v, err := w.cfg.Answer(ctx, c.Method, c.Body)
	if err == nil {
		a.Body, err = json.Marshal(v)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// report notes the worker's health and tells node when it changed.
func (w *Worker) report(problem string) {
	w.mu.Lock()
	changed := w.problem != problem
	w.problem = problem
	w.mu.Unlock()
	if changed && w.cfg.Changed != nil {
		w.cfg.Changed()
	}
}
