package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"trivet/internal/metric"
	"trivet/internal/pace"
	"trivet/internal/part"
	"trivet/internal/process"
)

// Env is what a worker's process was given, for the constructor of its part.
type Env struct {
	Log     *slog.Logger
	Metrics *metric.Registry
	// Call asks node; see the methods that node answers for this worker.
	Call func(ctx context.Context, method string, in, out any) error

	files   map[string]*os.File
	turn    <-chan struct{}
	packets []*PacketConn
}

// Listener returns the listening socket of that name. The descriptor that was
// handed over stays open beside it, under its number, for the next node to
// take back.
func (e *Env) Listener(name string) (net.Listener, error) {
	f, ok := e.files[name]
	if !ok {
		return nil, fmt.Errorf("node handed over no listener %q", name)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("use listener %q: %w", name, err)
	}
	return l, nil
}

// File returns the open file of that name.
func (e *Env) File(name string) (*os.File, error) {
	f, ok := e.files[name]
	if !ok {
		return nil, fmt.Errorf("node handed over no file %q", name)
	}
	return f, nil
}

// Serve is the worker process's life: it takes over the files, fences itself
// in, builds the part, and runs it with the states that node pushes until
// SIGTERM. From then on it gives way: it reads no packets, and speaks with node
// and serves its metrics, under another name, until the part has drained.
// build does no I/O beyond using the listeners.
func Serve(ctx context.Context, name string, fence Fence, build func(*Env) (part.Part, error)) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	s := &server{
		name: name, dial: os.Getenv("TRIVET_CONTROL"), metrics: os.Getenv("TRIVET_METRICS"),
		files: inherit(os.Getenv("TRIVET_FILES")), turn: make(chan struct{}), yielded: make(chan struct{}),
	}
	if os.Getenv("TRIVET_TURN") != waitTurn {
		s.begin()
	}
	if s.dial == "" {
		return errors.New("a worker is started by trivet node, not by hand")
	}
	env := &Env{
		Log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Metrics: metric.NewRegistry(),
		Call:    s.call,
		files:   s.files, turn: s.turn,
	}
	if err := errors.Join(fence.close(s.metrics), filter(fence.Programs)); err != nil {
		return err
	}
	p, err := build(env)
	if err != nil {
		return fmt.Errorf("build worker %s: %w", name, err)
	}
	s.part, s.log = p, env.Log
	return s.run(ctx, env)
}

// inherit names the descriptors 3, 4, … and keeps them from children.
func inherit(names string) map[string]*os.File {
	files := map[string]*os.File{}
	if names == "" {
		return files
	}
	for i, n := range strings.Split(names, ",") {
		syscall.CloseOnExec(3 + i)
		files[n] = os.NewFile(uintptr(3+i), n)
	}
	return files
}

// server is the process's half of the conversation.
type server struct {
	name, dial string
	metrics    string // folder of the metrics socket
	files      map[string]*os.File
	part       part.Part
	log        *slog.Logger

	once    sync.Once
	turn    chan struct{} // closed when it is in charge
	yielded chan struct{} // closed when it has given way

	mu   sync.Mutex
	conn *conn
}

// waitTurn is TRIVET_TURN of a process that takes over from another: until node
// says that it is in charge it reads no packets, and its metrics have another name.
const waitTurn = "wait"

func (s *server) begin() { s.once.Do(func() { close(s.turn) }) }

// run serves the part until ctx ends or the part fails; its metrics and the
// conversation as long as the part still drains.
func (s *server) run(ctx context.Context, env *Env) error {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { s.converse(life) })
	wg.Go(func() { s.giveWay(ctx, life, env) })
	err := s.part.Run(ctx)
	cancel()
	wg.Wait()
	// A file that nothing refers to any more would be closed, and its number used anew.
	runtime.KeepAlive(s.files)
	return err
}

// giveWay serves the metrics, and when ctx ends sees to it that the next
// process can have their name and the packets, and tells node. It returns at the end of life.
func (s *server) giveWay(ctx, life context.Context, env *Env) {
	serving, stop := until(ctx, life.Done())
	defer stop()
	waiting, stop := until(serving, s.turn)
	defer stop()
	s.serveMetrics(waiting, env, s.name+"-next")
	s.serveMetrics(serving, env, s.name)
	closePackets(life, env.packets)
	close(s.yielded)
	s.tellYielded(s.current())
	s.serveMetrics(life, env, retiringName(s.name, os.Getpid()))
}

// until returns a context that ends with ctx or when done is closed.
func until(ctx context.Context, done <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	select {
	case <-done:
		cancel()
		return ctx, cancel
	default:
	}
	go func() {
		select {
		case <-done:
		case <-ctx.Done():
		}
		cancel()
	}()
	return ctx, cancel
}

func (s *server) serveMetrics(ctx context.Context, env *Env, name string) {
	if ctx.Err() != nil {
		return
	}
	if err := env.Metrics.Serve(ctx, s.metrics, name, part.UserMonitor); err != nil {
		s.log.Error("serve metrics", "err", err)
		<-ctx.Done()
	}
}

// closePackets gives the part a moment to close its packet sockets, then does it.
func closePackets(life context.Context, packets []*PacketConn) {
	late := time.NewTimer(packetGrace)
	defer late.Stop()
	for _, p := range packets {
		select {
		case <-p.closed:
		case <-late.C:
			late.Reset(0)
		case <-life.Done():
		}
		_ = p.Close()
	}
}

// tellYielded tells node over c that the next process may go on.
func (s *server) tellYielded(c *conn) {
	select {
	case <-s.yielded:
		if c != nil {
			_ = c.send(message{Yielded: &struct{}{}})
		}
	default:
	}
}

// converse keeps a connection to node, whichever node there is.
func (s *server) converse(ctx context.Context) {
	back := process.Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for ctx.Err() == nil {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", s.dial)
		if err == nil {
			back.Reset()
			s.listen(ctx, newConn(c, s.answer))
		}
		if back.Wait(ctx) != nil {
			return
		}
	}
}

// listen serves one connection to its end.
func (s *server) listen(ctx context.Context, c *conn) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.end()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.c.Close() })
	defer stop()
	s.use(c)
	defer s.use(nil)
	s.tellYielded(c)
	states := make(chan *stateMessage, 1)
	wg.Go(func() { s.apply(ctx, c, states) })
	wg.Go(func() { s.beat(ctx, c) })
	for {
		m, err := c.receive()
		if err != nil {
			return
		}
		switch {
		case m.State != nil:
			replace(states, m.State)
		case m.Turn != nil:
			s.begin()
		case m.Call != nil:
			c.asked.take(ctx, c, *m.Call)
		case m.Answer != nil:
			c.calls.answered(m.Answer)
		}
	}
}

// replace leaves the newest state in the channel.
func replace(states chan *stateMessage, s *stateMessage) {
	select {
	case <-states:
	default:
	}
	states <- s
}

// apply hands each state to the part and tells node the outcome.
func (s *server) apply(ctx context.Context, c *conn, states <-chan *stateMessage) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-states:
			a := &appliedMessage{Seq: m.Seq}
			if err := s.part.Apply(ctx, m.State); err != nil {
				a.Error = err.Error()
			}
			_ = c.send(message{Applied: a})
			_ = c.send(message{Health: s.health(ctx)})
		}
	}
}

// look is the time between two looks at the part's health.
const look = time.Second

// beat looks at the part's health each second, and reports changes at once and the rest each beat.
func (s *server) beat(ctx context.Context, c *conn) {
	due := time.NewTimer(0)
	defer due.Stop()
	last, sent := (*healthMessage)(nil), time.Time{}
	for {
		h := s.health(ctx)
		if last == nil || *h != *last || time.Since(sent) > beat-look/2 {
			if c.send(message{Health: h}) != nil {
				_ = c.c.Close()
				return
			}
			last, sent = h, time.Now()
		}
		due.Reset(pace.Next(look))
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		}
	}
}

func (s *server) health(ctx context.Context) *healthMessage {
	if err := s.part.Check(ctx); err != nil {
		return &healthMessage{Problem: err.Error()}
	}
	return &healthMessage{}
}

func (s *server) use(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = c
}

func (s *server) current() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

// answer serves node's questions.
func (s *server) answer(ctx context.Context, method string, _ json.RawMessage) (any, error) {
	i, ok := s.part.(part.Inspector)
	if method != callInspect || !ok {
		return nil, errors.New("it has nothing to show")
	}
	return i.Inspect(ctx)
}

// call asks node and waits for the answer, at most until ctx ends.
func (s *server) call(ctx context.Context, method string, in, out any) error {
	question, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("ask node for %s: %w", method, err)
	}
	c := s.current()
	if c == nil {
		return fmt.Errorf("ask node for %s: node is not running", method)
	}
	body, err := c.calls.ask(ctx, c, method, question)
	if err != nil {
		return fmt.Errorf("ask node for %s: %w", method, err)
	}
	return json.Unmarshal(body, out)
}
