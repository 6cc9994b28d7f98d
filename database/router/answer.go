package router

import (
	"encoding/binary"

	"trivet/database/router/wire"
)

// answering copies one answer to the client. Rows pass as they come, without
// being looked at beyond their first byte.
type answering struct {
	s          *session
	up         *upstream
	t          *turn
	b          []byte
	from, r, w int // passed on is what is before from, looked at what is before r, read what is before w
	rest       int // of a packet that passes
}

// answer copies the answer to t to the client.
func (s *session) answer(up *upstream, t *turn) error {
	chunk := answerChunks.Get().(*[answerChunk]byte)
	defer answerChunks.Put(chunk)
	a := answering{s: s, up: up, t: t, b: chunk[:]}
	for !s.reply.Ended() || a.rest > 0 {
		if err := a.packet(); err != nil {
			return err
		}
	}
	if a.r != a.w {
		return &lost{wire.ErrMalformed}
	}
	return a.flush()
}

// packet takes the next packet.
func (a *answering) packet() error {
	if a.rest > 0 {
		return a.through()
	}
	if err := a.fill(wire.HeaderSize); err != nil {
		return err
	}
	n, _ := wire.Header(a.b[a.r:])
	if err := a.fill(wire.HeaderSize + min(n, 1)); err != nil {
		return err
	}
	first := byte(0)
	if n > 0 {
		first = a.b[a.r+wire.HeaderSize]
	}
	if !a.s.reply.Whole(n, first) {
		return a.row(n)
	}
	if err := a.fill(wire.HeaderSize + n); err != nil {
		return err
	}
	return a.whole(a.b[a.r+wire.HeaderSize : a.r+wire.HeaderSize+n])
}

// row passes a packet whose content does not matter.
func (a *answering) row(n int) error {
	if err := a.s.reply.Next(n, a.b[a.r+wire.HeaderSize:a.r+wire.HeaderSize+min(n, 1)]); err != nil {
		return &lost{err}
	}
	a.r += wire.HeaderSize + n
	if a.r > a.w {
		a.rest = a.r - a.w
		a.r = a.w
	}
	return nil
}

// whole takes a packet that says something.
func (a *answering) whole(payload []byte) error {
	reply := &a.s.reply
	if !a.t.passed && a.from == a.r && reply.First() && notReady(wire.ParseError(payload)) {
		return errNotReady
	}
	var ok wire.OK
	changed := false
	if reply.HasOK(payload) {
		var err error
		if ok, err = wire.ParseOK(payload); err != nil {
			return &lost{err}
		}
		changed = len(ok.Changes) > 0 || ok.Status&wire.StatusSessionChanged != 0
	}
	if err := reply.Next(len(payload), payload); err != nil {
		return &lost{err}
	}
	a.prepared(payload)
	a.r += wire.HeaderSize + len(payload)
	if changed {
		return a.rewrite(ok, len(payload))
	}
	return nil
}

// prepared puts the session's own identifier in the place of the server's.
func (a *answering) prepared(payload []byte) {
	if a.t.command == wire.StmtPrepare && a.t.statement == nil && a.s.reply.Code == 0 {
		a.t.statement = a.s.keep(a.up, a.t)
		binary.LittleEndian.PutUint32(payload[1:], a.t.statement.number)
	}
}

// rewrite passes an OK packet with those changes of the session only that the client asked for.
func (a *answering) rewrite(ok wire.OK, n int) error {
	a.s.note(a.t, ok.Changes)
	start := a.r - n - wire.HeaderSize
	sequence := a.b[start+3]
	b := wire.Frame(sequence, ok.Append(nil, a.s.asked(ok.Changes)))
	// What is left of the packet is never longer than the packet was.
	shift := n + wire.HeaderSize - len(b)
	copy(a.b[start+shift:], b)
	moved := copy(a.b[a.from+shift:start+shift], a.b[a.from:start])
	a.from = start + shift - moved
	return nil
}

// asked are those of the changes that the client would have been told of.
func (s *session) asked(changes []byte) []byte {
	if s.wants&wire.ClientSessionTrack == 0 {
		return nil
	}
	var out []byte
	for c := range wire.Each(changes) {
		if c.Kind == wire.ChangeState || c.Kind == wire.ChangeVariable && !reported[string(c.Name)] {
			continue
		}
		out = wire.AppendChange(out, c)
	}
	return out
}

// reported are the variables whose changes a client is told of that asked for
// session tracking: MariaDB's default of session_track_system_variables.
var reported = map[string]bool{
	"autocommit": true, "character_set_client": true, "character_set_connection": true, "character_set_results": true, "time_zone": true,
}

// fill reads until n bytes after r are there.
func (a *answering) fill(n int) error {
	for a.w-a.r < n {
		if err := a.flush(); err != nil {
			return err
		}
		if a.r == a.w {
			a.from, a.r, a.w = 0, 0, 0
		}
		if a.r+n > len(a.b) {
			a.room(n)
		}
		got, err := a.up.Read(a.b[a.w:])
		if err != nil && got == 0 {
			return &lost{err}
		}
		a.w += got
	}
	return nil
}

// room moves what has not been looked at to the front, of a longer buffer if need be.
func (a *answering) room(n int) {
	to := a.b
	if n > len(to) {
		to = make([]byte, n)
	}
	a.w = copy(to, a.b[a.r:a.w])
	a.from, a.r, a.b = 0, 0, to
}

// through passes the rest of a packet.
func (a *answering) through() error {
	if err := a.flush(); err != nil {
		return err
	}
	a.from, a.r, a.w = 0, 0, 0
	got, err := a.up.Read(a.b)
	if err != nil && got == 0 {
		return &lost{err}
	}
	a.w = got
	a.r = min(got, a.rest)
	a.rest -= a.r
	return nil
}

// flush passes on what has been looked at.
func (a *answering) flush() error {
	if a.from == a.r {
		return nil
	}
	a.t.passed = true
	err := a.s.pass(a.b[a.from:a.r])
	a.from = a.r
	return err
}
