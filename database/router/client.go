package router

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"trivet/database/router/wire"
)

const (
	errTooMany   = 1040 // ER_CON_COUNT_ERROR
	errHandshake = 1043 // ER_HANDSHAKE_ERROR
	loginTimeout = 10 * time.Second
	stallTimeout = time.Minute // for a client to take what it has asked for

	// unknownVersion is what clients are greeted with before mariadbd has been
	// spoken to. Drivers know MariaDB by the prefix.
	unknownVersion = "5.5.5-10.11.0-MariaDB"
	utf8mb4        = 45 // utf8mb4_general_ci
	firstThread    = 1 << 30
)

// offered is what a client may ask for: what passes between it and the server
// without change, or with a change that the router knows. No TLS, for the
// address is this machine's own; no compression; no local files.
const offered = wire.ClientMySQL | wire.ClientFoundRows | wire.ClientLongFlag | wire.ClientConnectWithDB | wire.ClientNoSchema |
	wire.ClientIgnoreSpace | wire.ClientProtocol41 | wire.ClientInteractive | wire.ClientTransactions | wire.ClientSecure |
	wire.ClientMultiStatement | wire.ClientMultiResults | wire.ClientPSMultiResults | wire.ClientPluginAuth |
	wire.ClientConnectAttrs | wire.ClientLenencAuth | wire.ClientSessionTrack | wire.ClientDeprecateEOF

// carried are those that the upstream of a client has to have as well.
const carried = wire.ClientFoundRows | wire.ClientLongFlag | wire.ClientNoSchema | wire.ClientIgnoreSpace | wire.ClientInteractive |
	wire.ClientMultiStatement | wire.ClientMultiResults | wire.ClientPSMultiResults | wire.ClientDeprecateEOF

// always is what every upstream has.
const always = wire.ClientMySQL | wire.ClientProtocol41 | wire.ClientTransactions | wire.ClientSecure | wire.ClientSessionTrack

// client serves one connection of the app, whose statements go by p.
func (r *Router) client(ctx context.Context, c net.Conn, p *pool) {
	if r.clients.Add(1) > int64(r.gate.capacity()) {
		r.refuse(c, 0, wire.Error{Code: errTooMany, Text: "trivet: too many connections to the database on this server"})
		r.clients.Add(-1)
		return
	}
	defer r.clients.Add(-1)
	s := &session{Conn: c, r: r, p: p, id: r.thread()}
	if !s.login(ctx) {
		return
	}
	defer r.gate.leave()
	defer s.finish()
	r.sessions.add(s)
	defer r.sessions.remove(s)
	s.revise() // the writer may have changed meanwhile
	s.serve(ctx)
}

// login greets the client, verifies who it is, and gets it a place and its
// first upstream, which is what says whether its database is there.
func (s *session) login(ctx context.Context) bool {
	if err := s.SetDeadline(time.Now().Add(loginTimeout)); err != nil {
		return false
	}
	scramble := wire.NewScramble()
	l, sequence, err := s.greet(scramble)
	if err != nil {
		return false
	}
	if f := s.r.verify(l, scramble); f != nil {
		s.r.refuse(s.Conn, sequence, *f)
		return false
	}
	if err := s.SetDeadline(time.Time{}); err != nil {
		return false
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if !s.r.gate.enter(waiting) {
		s.r.refuse(s.Conn, sequence, wire.Error{Code: errTooMany, State: "08004", Text: "trivet: too many connections to the database on this server"})
		return false
	}
	if !s.welcome(waiting, l, sequence) {
		s.r.gate.leave()
		return false
	}
	s.r.meters.opened.Inc()
	return true
}

// welcome gets the session its upstream and tells the client that it is signed in.
func (s *session) welcome(ctx context.Context, l wire.Login, sequence byte) bool {
	s.begins(l)
	_, err := s.fetch(ctx)
	if f, ok := errors.AsType[*failure](err); ok {
		s.r.log.Warn("connection refused", "err", err)
		s.r.refuse(s.Conn, sequence, f.says)
		return false
	}
	s.reply.Status = wire.StatusAutocommit
	if err == nil {
		err = s.say(sequence, wire.Done(s.reply.Status))
	}
	if err != nil {
		s.finish()
		return false
	}
	return true
}

// begins sets what the session is to be by what its client has said.
func (s *session) begins(l wire.Login) {
	s.memory = memory{database: l.Database}
	s.wants = l.Capabilities & offered
	s.profile = profile{capabilities: always | s.wants&carried, collation: l.Collation}
	if l.Collation == 0 {
		s.profile.collation = utf8mb4
	}
}

// greet sends the greeting and reads who the client says it is. The sequence
// number is that of the packet which comes next.
func (s *session) greet(scramble [wire.ScrambleSize]byte) (wire.Login, byte, error) {
	g := wire.Greeting{
		Version: *s.r.version.Load(), Thread: s.id, Scramble: scramble, Capabilities: offered, Collation: utf8mb4, Status: wire.StatusAutocommit,
	}
	if _, err := s.Write(wire.Frame(0, g.Append(nil))); err != nil {
		return wire.Login{}, 0, err
	}
	payload, sequence, err := readPacket(s.Conn)
	if err != nil {
		return wire.Login{}, 0, err
	}
	l, err := wire.ParseLogin(payload)
	if err != nil {
		s.r.refuse(s.Conn, sequence+1, wire.Error{Code: errHandshake, State: "08S01", Text: "Bad handshake (trivet: the router speaks protocol 4.1 without TLS)"})
		return wire.Login{}, 0, err
	}
	if l.Capabilities&wire.ClientPluginAuth == 0 || l.Plugin == wire.NativePassword {
		return l, sequence + 1, nil
	}
	l.Answer, sequence, err = s.asks(sequence+1, scramble)
	return l, sequence, err
}

// asks has a client that would rather sign in by another way do it by ours.
func (s *session) asks(sequence byte, scramble [wire.ScrambleSize]byte) ([]byte, byte, error) {
	if _, err := s.Write(wire.Frame(sequence, wire.Switch(scramble))); err != nil {
		return nil, 0, err
	}
	var head [wire.HeaderSize]byte
	if err := readFull(s.Conn, head[:]); err != nil {
		return nil, 0, err
	}
	n, sequence := wire.Header(head[:])
	answer := make([]byte, min(n, small))
	if n > len(answer) {
		return nil, 0, wire.ErrMalformed
	}
	return answer, sequence + 1, readFull(s.Conn, answer)
}

// verify reports why l is not the app; nil: it is. That a user does not exist
// takes no shorter than that its password is wrong.
func (r *Router) verify(l wire.Login, scramble [wire.ScrambleSize]byte) *wire.Error {
	cr := *r.credentials.Load()
	proved := false
	for _, password := range cr.passwords {
		if wire.Proves(l.Answer, password, scramble) {
			proved = true
		}
	}
	if proved && l.User == cr.user {
		return nil
	}
	used := map[bool]string{true: "YES", false: "NO"}[len(l.Answer) > 0]
	user := strings.ToValidUTF8(l.User[:min(len(l.User), 80)], "?")
	return &wire.Error{Code: errAccessDenied, State: "28000", Text: "Access denied for user '" + user + "'@'localhost' (using password: " + used + ")"}
}

// finish gives the upstream to the next client, if nothing of an answer is left in it.
func (s *session) finish() {
	s.mu.Lock()
	up := s.up
	s.up, s.ended = nil, true
	s.mu.Unlock()
	switch {
	case up == nil:
	case !s.reply.Ended() || s.odd:
		up.cut()
		s.p.gone()
	default:
		_ = s.Close() // what follows is not for the client to wait for
		s.p.put(up)
	}
}

// changeUser signs the client in anew: a session as new, with an upstream as new.
func (s *session) changeUser(ctx context.Context, q *request) error {
	if !q.whole() {
		return wire.ErrMalformed
	}
	l, err := wire.ParseChangeUser(q.payload(), s.wants)
	if err != nil {
		return err
	}
	// Clients answer to a scramble of this moment, as mariadbd has them do.
	scramble := wire.NewScramble()
	answer, sequence, err := s.asks(q.sequence+1, scramble)
	if err != nil {
		return err
	}
	l.Answer = answer
	if f := s.r.verify(l, scramble); f != nil {
		s.r.refuse(s.Conn, sequence, *f)
		return errQuit
	}
	s.giveBack()
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.begins(l)
	if _, err := s.fetch(waiting); err != nil {
		if f, ok := errors.AsType[*failure](err); ok {
			s.r.refuse(s.Conn, sequence, f.says)
		}
		return errQuit
	}
	s.reply.Status = wire.StatusAutocommit
	return s.say(sequence, wire.Done(s.reply.Status))
}

// giveBack ends the session's use of its upstream.
func (s *session) giveBack() {
	s.mu.Lock()
	up := s.up
	s.up, s.rollback = nil, false
	s.mu.Unlock()
	switch {
	case up == nil:
	case s.odd:
		up.cut()
		s.p.gone()
	default:
		s.p.put(up)
	}
}

// reset makes the session as new, as COM_RESET_CONNECTION does.
func (s *session) reset(ctx context.Context, q *request) error {
	database := s.database
	s.giveBack()
	s.memory = memory{database: database}
	s.reply.Status = wire.StatusAutocommit
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := s.fetch(waiting); err != nil {
		return err
	}
	return s.say(q.sequence+1, wire.Done(s.reply.Status))
}

// refuse sends an error to one who is not signed in. Before the greeting it
// has no SQL state, for the client has not said that it knows protocol 4.1.
func (r *Router) refuse(c net.Conn, sequence byte, e wire.Error) {
	r.meters.refused.Inc()
	if err := c.SetWriteDeadline(time.Now().Add(shakeTimeout)); err != nil {
		return
	}
	_, _ = c.Write(wire.Frame(sequence, e.Append(nil)))
}
