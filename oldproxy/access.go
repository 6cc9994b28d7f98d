package proxy

import (
	"encoding/json"
	"io"
	"net"
	"sync"
	"time"
)

// The access log is written when so much is there, or so long after the first
// line that is not written; what a stalled disk cannot take in is dropped.
const (
	accessSize  = 32 << 10
	accessDelay = 250 * time.Millisecond
)

// The longest values that a client can put into a line.
const (
	maxPath  = 2048
	maxAgent = 512
)

// AccessLog writes one line of JSON for each exchange. It wakes only when
// there is something to write. It is safe for concurrent use.
type AccessLog struct {
	mu    sync.Mutex
	w     io.Writer
	buf   []byte
	timer *time.Timer
}

// NewAccessLog returns a log to w; nil: lines go nowhere.
func NewAccessLog(w io.Writer) *AccessLog {
	if w == nil {
		w = io.Discard
	}
	return &AccessLog{w: w}
}

type accessLine struct {
	Time     string  `json:"time"`
	ID       string  `json:"id,omitempty"`
	Client   string  `json:"client"`
	Method   string  `json:"method"`
	Host     string  `json:"host"`
	Path     string  `json:"path"`
	Query    string  `json:"query,omitempty"`
	Protocol string  `json:"protocol"`
	Status   int     `json:"status"`
	Bytes    int64   `json:"bytes"`
	Duration float64 `json:"duration"` // seconds
	Server   string  `json:"server,omitempty"`
	Retries  int     `json:"retries"`
	Broken   bool    `json:"broken,omitempty"`
	Agent    string  `json:"agent,omitempty"`
}

// Write adds x's line.
func (l *AccessLog) Write(x *Exchange) {
	line, err := json.Marshal(lineOf(x))
	if err != nil {
		return // cannot be: there are only strings and numbers in it
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(append(l.buf, line...), '\n')
	if len(l.buf) >= accessSize {
		l.flush()
		return
	}
	l.wake()
}

func lineOf(x *Exchange) accessLine {
	r := x.Request
	return accessLine{
		Time: x.Begin.UTC().Format("2006-01-02T15:04:05.000Z"), ID: x.ID, Client: cut(x.Client, 64),
		Method: cut(r.Method, 32), Host: cut(r.Host, 255),
		Path: cut(r.URL.EscapedPath(), maxPath), Query: cut(r.URL.RawQuery, maxPath), Protocol: r.Proto,
		Status: x.Status, Bytes: x.Bytes, Duration: float64(x.Duration.Microseconds()) / 1e6,
		Server: x.Server, Retries: x.Retries, Broken: x.Broken, Agent: cut(r.UserAgent(), maxAgent),
	}
}

// wake makes sure that what is there will be written.
func (l *AccessLog) wake() {
	if l.timer == nil {
		l.timer = time.AfterFunc(accessDelay, l.Flush)
	}
}

// Flush writes what is there.
func (l *AccessLog) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush()
}

func (l *AccessLog) flush() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if len(l.buf) > 0 {
		_, _ = l.w.Write(l.buf) // a full disk must not stop the serving
		l.buf = l.buf[:0]
	}
}

// ClientOf is the address in a connection's host:port, without the port.
func ClientOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	return host
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
