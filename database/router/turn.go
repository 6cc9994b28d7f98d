package router

import (
	"context"
	"errors"
	"strings"
	"time"

	"trivet/database/router/digest"
	"trivet/database/router/wire"
)

// turn is one request and its answer.
type turn struct {
	*request
	began     time.Time
	whole     bool // the request can be sent again, if it was not sent
	open      bool // a transaction was open before it
	traits    wire.Traits
	scanner   wire.Scanner
	text      []byte     // of the statement, or its beginning
	statement *statement // of a prepared one
	passed    bool       // some of the answer is with the client
}

// longestText is how much of a statement is kept to be seen, if it is not whole
// in memory: enough for its digest, and to show that there was more.
const longestText = digest.Seen + 1

// errNotReady is mariadbd's word that it is not in a group that may write now,
// and has not done anything.
var errNotReady = errors.New("it is not part of the group")

// lost is an upstream that ended before its answer.
type lost struct{ err error }

func (l *lost) Error() string { return "lost the database: " + l.err.Error() }

// forward has the upstream answer q.
func (s *session) forward(ctx context.Context, q *request) error {
	t, err := s.begin(q)
	if err != nil {
		return errors.Join(s.in.skip(s.Conn, q), err)
	}
	err = s.attempts(ctx, t)
	s.observe(t, err)
	if _, ok := errors.AsType[*failure](err); ok {
		return errors.Join(s.in.skip(s.Conn, q), err)
	}
	return err
}

// begin looks at a request.
func (s *session) begin(q *request) (*turn, error) {
	t := &s.turn
	*t = turn{request: q, began: time.Now(), whole: q.whole(), open: s.open}
	switch q.command {
	case wire.Query, wire.StmtPrepare:
		t.text = q.payload()[1:]
		t.scanner = wire.NewScanner(s.reply.Status)
		t.scanner.Feed(t.text)
		if t.whole {
			t.traits = t.scanner.Traits()
		} else {
			t.text = append([]byte(nil), t.text[:min(len(t.text), longestText)]...)
		}
	case wire.ProcessKill:
		s.kill(t)
	case wire.StmtExecute, wire.StmtReset, wire.StmtFetch:
		return t, s.find(t)
	}
	if t.traits&wire.Kill != 0 {
		s.kill(t)
	}
	return t, nil
}

// attempts sends the request until it has been answered, or was sent and may
// have been answered.
func (s *session) attempts(ctx context.Context, t *turn) error {
	waiting, cancel := context.Context(nil), context.CancelFunc(nil)
	for {
		up, err := s.ready(t)
		if up == nil && err == nil {
			if waiting == nil {
				waiting, cancel = context.WithTimeout(ctx, patience)
				defer cancel()
			}
			up, err = s.fetch(waiting)
		}
		if err != nil {
			return s.refuse(t, err)
		}
		if again, err := s.try(up, t); !again {
			return err
		}
		if waiting != nil && !pause(waiting, 20*time.Millisecond) {
			return noWriter(errNotReady)
		}
	}
}

// try sends the request once. It says whether it may be sent again: that
// is when it is known not to have been executed, and nothing else was lost with it.
func (s *session) try(up *upstream, t *turn) (again bool, err error) {
	sent, err := s.send(up, t)
	if err == nil {
		err = s.answer(up, t)
	}
	_, gone := errors.AsType[*lost](err)
	switch {
	case err == nil:
		s.learn(t)
		return false, nil
	case errors.Is(err, errNotReady) || gone && !sent:
		s.lose()
		if fixed := s.after(t); fixed != nil {
			return false, fixed
		}
		return t.whole, errUnknown
	case gone:
		s.lose()
		if s.repeatable(t) {
			s.r.meters.moved.Inc()
			return true, nil
		}
		return false, s.fate(t)
	}
	return false, err
}

// after is what a client is told when its upstream was lost but not the
// request; nil: nothing, for the request can be sent to another.
func (s *session) after(t *turn) error {
	switch {
	case !s.movable():
		s.r.meters.cut.Inc()
		return errFixed
	case t.open:
		return errRolledBack
	}
	s.r.meters.moved.Inc()
	return nil
}

// fate is what a client is told when its upstream was lost with the request.
func (s *session) fate(t *turn) error {
	s.r.meters.cut.Inc()
	const one = wire.Data
	switch {
	case t.passed:
		return errQuit // in the middle of the answer nothing can be said
	case t.open && s.movable() && t.traits&one != 0 && t.traits&(wire.Many|wire.Leaves) == 0:
		return errRolledBack // one statement inside of a transaction cannot have ended it
	}
	return errUnknown
}

// repeatable reports whether a request that may have been executed can be sent
// again: one for reads, outside of a transaction, that changed nothing.
func (s *session) repeatable(t *turn) bool {
	_, set := s.variables["tx_read_only"]
	return s.p.kind == kindRead && !set && t.whole && !t.open && !t.passed && s.movable() && t.traits&(wire.Leaves|wire.Many) == 0 &&
		(t.command == wire.Query || t.command == wire.StmtExecute) && t.traits&wire.Data != 0
}

// ready returns the upstream that the session has, if statements still go
// there; nil: it has none.
func (s *session) ready(t *turn) (*upstream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return nil, errQuit
	case s.rollback:
		s.rollback = t.command == wire.Ping
		return nil, errRolledBack
	case s.up == nil:
		return nil, nil
	case s.current():
		return s.up, nil
	}
	s.drop()
	return nil, s.after(t)
}

// current reports whether the next statement may go to the upstream. It is called under mu.
func (s *session) current() bool {
	if !s.p.fresh(s.up) && (!s.open || s.up.generation != s.p.generation.Load()) {
		return false
	}
	return !s.up.remote || s.up.alive()
}

// refuse answers for an upstream that there is none of, where that needs none.
func (s *session) refuse(t *turn, err error) error {
	if !errors.Is(err, errRolledBack) {
		return err
	}
	s.reply.Status &^= wire.StatusInTransaction
	if t.command == wire.Ping || t.traits&wire.Rollback != 0 && t.traits&wire.Many == 0 {
		return s.say(t.sequence+1, wire.Done(s.reply.Status))
	}
	s.r.meters.rolledBack.Inc()
	return err
}

// send passes the request on. Unless sent, the server has not got all of it,
// and so has not executed it.
func (s *session) send(up *upstream, t *turn) (sent bool, err error) {
	first, err := s.translate(up, t)
	if err != nil {
		return false, err
	}
	s.reply.Expect(t.command, up.capabilities)
	if _, err := up.Write(first); err != nil {
		return false, &lost{err}
	}
	if t.request.whole() {
		return true, nil
	}
	scanned := t.command == wire.Query || t.command == wire.StmtPrepare
	err = s.in.each(s.Conn, t.request, func(b []byte, payload bool) error {
		if payload && scanned {
			t.scanner.Feed(b)
		}
		if _, err := up.Write(b); err != nil {
			return s.rejected(up, err)
		}
		return nil
	})
	if scanned {
		t.traits = t.scanner.Traits()
	}
	return err == nil, err
}

// rejected reads why the server hung up on a request that it had not read: it is too long.
func (s *session) rejected(up *upstream, err error) error {
	if e := up.SetReadDeadline(time.Now().Add(exchangeTimeout)); e != nil {
		return &lost{err}
	}
	payload, _, e := readPacket(up)
	if e != nil {
		return &lost{err}
	}
	if said := wire.ParseError(payload); said != nil {
		return &failure{*said, true}
	}
	return &lost{err}
}

// observe tells of a statement that was answered, or not.
func (s *session) observe(t *turn, err error) {
	if t.command != wire.Query && t.command != wire.StmtExecute {
		return
	}
	s.r.meters.statements.Inc()
	text := t.text
	if t.statement != nil {
		text = t.statement.text
	}
	s.r.digests.Observe(digest.Statement{
		Text: text, Plain: s.reply.Status&wire.StatusPlainBackslash != 0,
		Took: time.Since(t.began), Failed: err != nil || s.reply.Code != 0, Rows: s.reply.Rows,
	})
}

// notReady reports whether e is wsrep's refusal to do anything.
func notReady(e *wire.Error) bool {
	return e != nil && e.Code == 1047 && strings.HasPrefix(e.Text, "WSREP")
}
