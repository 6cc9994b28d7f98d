package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"trivet/internal/part"
)

// Config says which worker to run and how.
type Config struct {
	Name       string     // of the worker, as in `trivet worker NAME`
	User       string     // it runs as
	Executable string     // the trivet binary
	Listeners  []Listener // opened now or taken back from the running worker
	Build      string     // names the binary; an adopted process of another is replaced by Replace only
	GC         int        // percent of the live heap that may be garbage (GOGC); 0: 50
	Alone      bool       // two processes of it cannot run at once, not even for a hand-over
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
	cfg        Config
	silence    time.Duration // after which a process is ended
	readyLimit time.Duration // for the next process
	sockets    []socket      // held for as long as node lives; only supervise uses them
	applied    chan appliedMessage
	orders     chan chan error // of Replace
	stirred    chan struct{}   // some process said something new
	former     sync.WaitGroup  // watchers of those that retire

	births sync.Mutex // held from the start of a process until it is known here
	push   sync.Mutex // held while a state is written, so that states arrive in their order

	mu       sync.Mutex
	current  *instance // in charge; nil while none runs
	next     *instance // during a hand-over
	retiring []*instance
	seq      uint64
	state    []byte // the newest, encoded; nil before the first Apply
	problem  string
	failed   string // why the last Replace failed
}

// New returns a worker that Run will start.
func New(cfg Config) *Worker {
	return &Worker{
		cfg: cfg, silence: silence, readyLimit: readyLimit, problem: "starting", applied: make(chan appliedMessage, 1),
		orders: make(chan chan error), stirred: make(chan struct{}, 1),
	}
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
	w.mu.Unlock()
	for _, c := range w.fed() {
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
	return w.current != nil && w.current.conn != nil && time.Since(w.current.heard) < 3*beat
}

// PID is the id of the process in charge, 0 if none runs.
func (w *Worker) PID() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current == nil {
		return 0
	}
	return w.current.p.PID()
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

// Stop ends the process, and what is left of those before it: SIGTERM, then after grace SIGKILL.
func (w *Worker) Stop(ctx context.Context, grace time.Duration) error {
	w.mu.Lock()
	all := append([]*instance{w.current, w.next}, w.retiring...)
	w.mu.Unlock()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for n, i := range all {
		if i != nil {
			wg.Go(func() { errs[n] = i.p.Stop(ctx, syscall.SIGTERM, grace) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}
