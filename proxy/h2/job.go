package h2

// job is what a goroutine of the crew does: it answers a stream, tells of one
// that is gone, or writes what a connection's reader has appended.
type job struct {
	stream *Stream
	gone   *Stream
	conn   *Conn
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
