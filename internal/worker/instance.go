package worker

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"trivet/internal/process"
)

// instance is one process of the worker. There is one in charge; while it is
// replaced there is the next one beside it, and for as long as they drain there
// are those before it. What comes after p is guarded by Worker.mu.
type instance struct {
	p       *process.Process
	turn    bool // it was told that it is in charge, or never had to be
	conn    *conn
	heard   time.Time
	problem string // why it is not healthy
	applied uint64 // the newest state that it answered to
	refused string // why it did not apply that one
	yielded chan struct{}
	gone    bool // yielded is closed
}

func newInstance(p *process.Process) *instance {
	return &instance{p: p, heard: time.Now(), problem: "starting", yielded: make(chan struct{})}
}

// peer is the id of the process at the other end of a unix socket (unix(7), SO_PEERCRED).
func peer(c net.Conn) (int, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("peer of a %T is not known", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// find returns the instance of that pid. It waits for one that is being started.
func (w *Worker) find(pid int) *instance {
	w.births.Lock()
	defer w.births.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range append([]*instance{w.current, w.next}, w.retiring...) {
		if i != nil && i.p.PID() == pid {
			return i
		}
	}
	return nil
}

// fed are the connections of those that get states.
func (w *Worker) fed() []*conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []*conn
	for _, i := range []*instance{w.current, w.next} {
		if i != nil && i.conn != nil {
			out = append(out, i.conn)
		}
	}
	return out
}

// Status is which processes of the worker run.
type Status struct {
	PID      int        `json:"pid"` // of the one in charge; 0: none runs
	Build    string     `json:"build,omitempty"`
	Retiring []Retiring `json:"retiring,omitempty"`
	HandOver string     `json:"hand_over,omitempty"` // why the last Replace failed
}

// Retiring is a former process that ends with its last connection.
type Retiring struct {
	PID   int    `json:"pid"`
	Build string `json:"build,omitempty"`
}

// Status reports what runs.
func (w *Worker) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Status{HandOver: w.failed}
	if w.current != nil {
		s.PID, s.Build = w.current.p.PID(), w.current.p.Note()
	}
	for _, i := range w.retiring {
		s.Retiring = append(s.Retiring, Retiring{i.p.PID(), i.p.Note()})
	}
	return s
}

func (w *Worker) record() string     { return "worker-" + w.cfg.Name }
func (w *Worker) nextRecord() string { return w.record() + "-next" }

func (w *Worker) retiringRecord(pid int) string { return retiringName(w.record(), pid) }

// retiringName is how a former process of that name is called.
func retiringName(name string, pid int) string { return name + "-retiring-" + strconv.Itoa(pid) }

// forget drops a retiring instance that has ended.
func (w *Worker) forget(i *instance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retiring = slices.DeleteFunc(w.retiring, func(r *instance) bool { return r == i })
}
