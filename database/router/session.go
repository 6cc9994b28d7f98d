package router

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"trivet/database/router/wire"
)

// session is one client that has signed in: what it talks to, and what a
// statement of it may depend on. One goroutine serves it; another may take its
// upstream away, under mu, when statements have to go elsewhere.
type session struct {
	net.Conn
	r       *Router
	p       *pool
	profile profile
	wants   uint32 // capabilities of the client: it may not have asked for all that the upstream has
	id      uint32 // that the client was greeted with
	in      input

	mu       sync.Mutex
	up       *upstream // nil: the next statement gets one
	busy     bool      // a request is under way
	open     bool      // in a transaction
	rollback bool      // the transaction that was open is gone, and the client does not know
	ended    bool      // what it has lost cannot be made anew, or the router stops
	rests    time.Time // since when, if not busy

	memory // this and what follows is only for the goroutine that serves it
	reply  wire.Reply
	turn   turn
	until  time.Time // write deadline of the client's connection
}

// memory is what a new upstream is told, so that the session goes on there.
type memory struct {
	database   string
	names      []byte            // the last SET NAMES
	variables  map[string]string // that were set, as the server named their values
	once       []byte            // SET TRANSACTION, for the next one
	statements map[uint32]*statement
	last       uint32 // identifier that was given to a statement
	cursors    int    // that are open
	loaded     int    // statements with long data that were not executed yet
	fixed      bool   // it has what no other upstream can be given
	odd        bool   // by COM_SET_OPTION its upstream is not of its profile
}

// movable reports whether the session can go on with another upstream.
func (s *session) movable() bool { return !s.fixed && !s.odd && s.cursors == 0 && s.loaded == 0 }

// failure is what a client is told instead of an answer.
type failure struct {
	says wire.Error
	end  bool // the connection is closed after it
}

// Error implements error.
func (f *failure) Error() string { return f.says.Error() }

// Errors that clients get of the router, in MariaDB's numbers.
var (
	// Drivers and frameworks take these for what they are: the transaction was rolled back and may be tried again.
	errRolledBack = &failure{wire.Error{Code: 1213, State: "40001", Text: "Deadlock found when trying to get lock; try restarting transaction (trivet: the database went to another server, and the transaction was rolled back)"}, false}
	errUnknown    = &failure{wire.Error{Code: 1927, State: "70100", Text: "Connection was killed (trivet: the database was lost during the statement, and whether it took effect is not known)"}, true}
	errFixed      = &failure{wire.Error{Code: 1927, State: "70100", Text: "Connection was killed (trivet: the database went to another server, and what this session holds cannot be taken there)"}, true}
	errCommand    = &failure{wire.Error{Code: 1235, State: "42000", Text: "trivet: the database's router does not carry this command"}, false}
)

// noWriter is what a client gets that has waited for a writer in vain.
// Drivers take the number for a server that became read-only, and connect anew.
func noWriter(err error) *failure {
	return &failure{wire.Error{Code: 1290, State: "HY000", Text: "trivet: the database takes no statements now: " + err.Error()}, false}
}

// serve answers requests until the client leaves or has to.
func (s *session) serve(ctx context.Context) {
	defer s.in.free()
	for {
		q, err := s.in.next(s.Conn)
		if err != nil || !s.enter() {
			return
		}
		err = s.handle(ctx, q)
		s.in.done(q)
		if f, ok := errors.AsType[*failure](err); ok {
			err = s.tell(q, f)
		}
		if !s.leave() || err != nil {
			return
		}
	}
}

var errQuit = errors.New("the client leaves")

// handle answers one request. An error that is no failure ends the session.
func (s *session) handle(ctx context.Context, q *request) error {
	switch q.command {
	case wire.Quit:
		return errQuit
	case wire.ChangeUser:
		return s.changeUser(ctx, q)
	case wire.ResetConnection:
		return s.reset(ctx, q)
	case wire.StmtClose:
		return s.closeStatement(q)
	case wire.StmtSendLongData:
		return s.longData(ctx, q)
	case wire.InitDB, wire.Query, wire.FieldList, wire.Refresh, wire.Statistics, wire.ProcessInfo, wire.ProcessKill, wire.Debug, wire.Ping,
		wire.StmtPrepare, wire.StmtExecute, wire.StmtReset, wire.SetOption, wire.StmtFetch:
		return s.forward(ctx, q)
	}
	if err := s.in.skip(s.Conn, q); err != nil {
		return err
	}
	return errCommand
}

// enter begins a request; false if the session has ended.
func (s *session) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = true
	return !s.ended
}

// leave ends a request: the upstream goes if statements are to go elsewhere.
func (s *session) leave() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy, s.rests = false, time.Now()
	s.open = s.up != nil && s.reply.Status&wire.StatusInTransaction != 0
	s.settle()
	return !s.ended
}

// settle takes the upstream from a session without a request under way, if it
// leads elsewhere than statements go now. It is called under mu.
func (s *session) settle() {
	switch {
	case s.up == nil || s.busy || s.p.fresh(s.up):
	case s.open && s.up.generation == s.p.generation.Load():
		// The switch is only made ready: this transaction may end.
	case !s.movable():
		s.r.meters.cut.Inc()
		s.end()
	default:
		s.rollback = s.open
		s.drop()
		s.r.meters.moved.Inc()
	}
}

// drop closes the upstream. It is called under mu.
func (s *session) drop() {
	s.up.cut()
	s.up, s.open = nil, false
	s.p.gone()
}

// lose drops the upstream, if it has not been taken yet.
func (s *session) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up != nil {
		s.drop()
	}
}

// end closes the client's connection. It is called under mu.
func (s *session) end() {
	s.ended = true
	_ = s.Close()
}

// revise is called when statements are to go elsewhere.
func (s *session) revise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy && s.up != nil && s.p.kind == kindWrite && s.up.generation != s.p.generation.Load() {
		s.up.cut() // whoever waits for its answer finds out
		return
	}
	s.settle()
}

// part ends a session that is between two requests, for the router stops.
func (s *session) part() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.busy && !s.open && time.Since(s.rests) >= drainIdle {
		s.end()
	}
}

// tell answers q with f.
func (s *session) tell(q *request, f *failure) error {
	s.r.meters.refused.Inc()
	if err := s.say(q.sequence+1, f.says.Append(nil)); err != nil {
		return err
	}
	if f.end {
		return f
	}
	return nil
}

// say sends one packet to the client.
func (s *session) say(sequence byte, payload []byte) error {
	return s.pass(wire.Frame(sequence, payload))
}

// pass writes b to the client, which has to take it in good time.
func (s *session) pass(b []byte) error {
	if now := time.Now(); s.until.Sub(now) < stallTimeout {
		s.until = now.Add(2 * stallTimeout)
		if err := s.SetWriteDeadline(s.until); err != nil {
			return err
		}
	}
	_, err := s.Write(b)
	return err
}
