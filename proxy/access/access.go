// Package access is the log of requests: one line for each, in JSON or in the
// combined form that Apache made customary.
//
// Lines are gathered and written in the background of serving: a log that is
// not written to does not wake the process, and what a stalled disk cannot
// take in is dropped, never waited for by a visitor.
package access

import (
	"io"
	"sync"
	"time"

	"trivet/proxy"
)

// The log is written when so much is there, or so long after the first line
// that is not written.
const (
	size  = 32 << 10
	most  = 1 << 20 // beyond it lines are dropped while a write is under way
	delay = 250 * time.Millisecond
)

// Form is how a line looks.
type Form uint8

// The forms. Combined has no room for the request's ID and timings.
const (
	JSON Form = iota
	Combined
	Off
)

// FormOf is the form that a site file names: json, combined or off.
func FormOf(name string) Form {
	switch name {
	case "combined":
		return Combined
	case "off":
		return Off
	}
	return JSON
}

// Log writes one line for each exchange. It is safe for concurrent use.
type Log struct {
	w io.Writer

	mu      sync.Mutex
	line    line
	buf     []byte
	spare   []byte // the buffer that was written last
	timer   *time.Timer
	waking  bool // the timer will fire
	full    bool // it will fire at once
	writing bool
	dropped uint64
}

// New returns a log to w; nil: lines go nowhere.
func New(w io.Writer) *Log {
	l := &Log{w: w}
	l.timer = time.AfterFunc(delay, l.Flush)
	l.timer.Stop()
	return l
}

// Write adds the line of x, which is over.
func (l *Log) Write(form Form, x *proxy.Exchange) {
	if form == Off || l.w == nil {
		return
	}
	l.mu.Lock()
	if len(l.buf) > most {
		l.dropped++
		l.mu.Unlock()
		return
	}
	if form == Combined {
		l.buf = l.line.combined(l.buf, x)
	} else {
		l.buf = l.line.json(l.buf, x)
	}
	switch {
	case len(l.buf) >= size && !l.writing && !l.full:
		l.waking, l.full = true, true
		l.timer.Reset(0) // in a goroutine of its own: the disk may be slow
	case !l.waking:
		l.waking = true
		l.timer.Reset(delay)
	}
	l.mu.Unlock()
}

// Flush writes what is there.
func (l *Log) Flush() {
	l.mu.Lock()
	l.waking, l.full = false, false
	if l.writing || len(l.buf) == 0 {
		l.mu.Unlock()
		return
	}
	lines := l.buf
	l.buf, l.spare, l.writing = l.spare[:0], nil, true
	l.mu.Unlock()
	_, _ = l.w.Write(lines) // a full disk must not stop the serving
	l.mu.Lock()
	l.writing, l.spare = false, lines[:0]
	l.mu.Unlock()
}

// Dropped is how many lines were never written.
func (l *Log) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}
