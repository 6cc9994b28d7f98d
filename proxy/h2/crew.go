package h2

import "sync/atomic"

// job is what a goroutine of the crew does: it answers a stream, tells of one
// that is gone, or writes what a connection's reader has appended.
type job struct {
	stream *Stream
	gone   *Stream
	conn   *Conn
}

// crew is the goroutines of a Config, kept for a while after their work, since a
// new one has to grow its stack first.
type crew struct {
	work chan job
	idle atomic.Int32
}

// run does j on an idle goroutine, else on a new one.
func (w *crew) run(j job) {
	select {
	case w.work <- j:
	default:
		go w.live(j)
	}
}

func (w *crew) live(j job) {
	for j != (job{}) {
		j.do()
		w.idle.Add(1)
		j = <-w.work
		w.idle.Add(-1)
	}
}

func (j job) do() {
	switch {
	case j.stream != nil:
		j.stream.serve()
	case j.gone != nil:
		j.gone.tell()
	default:
		j.conn.mu.Lock()
		j.conn.flush(alone)
		j.conn.mu.Unlock()
	}
}

// dismiss ends a part of the idle goroutines, so that after a rush most are
// gone in a few steps of the sweep; or all of them.
func (w *crew) dismiss(all bool) {
	n := w.idle.Load()
	if !all {
		n = (n - 8) / 8
	}
	for range n {
		select {
		case w.work <- job{}:
		default:
			return
		}
	}
}
