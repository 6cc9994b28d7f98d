package router

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"trivet/database/router/wire"
)

// statement is a prepared one. The client knows it by a number of the
// session's; the upstream by an identifier of its own.
type statement struct {
	number uint32
	text   []byte // nil: too long to be kept
	traits wire.Traits
	params int

	up     *upstream // that knows it
	id     uint32    // there
	types  []byte    // of the parameters, as they were last sent
	told   bool      // up knows the types
	cursor bool      // is open
	loaded bool      // has long data
	failed error     // of long data, whose sender gets no answer
}

const (
	errUnknownStatement = 1243       // ER_UNKNOWN_STMT_HANDLER
	lastStatement       = 0xffffffff // MariaDB's way to execute what was just prepared
	statementHead       = 5          // command and identifier
	executeHead         = 10         // and flags, and how often
	mostStatements      = 16382      // as mariadbd's max_prepared_stmt_count
)

// keep notes a statement that up has just prepared.
func (s *session) keep(up *upstream, t *turn) *statement {
	s.last++
	st := &statement{number: s.last, up: up, id: s.reply.Statement, params: int(s.reply.Params), traits: t.traits}
	if t.whole {
		st.text = bytes.Clone(t.text)
	}
	if s.statements == nil {
		s.statements = map[uint32]*statement{}
	}
	s.statements[st.number] = st
	return st
}

// find sets the statement that a request is about.
func (s *session) find(t *turn) error {
	p := t.payload()
	if len(p) < statementHead {
		return wire.ErrMalformed
	}
	number := binary.LittleEndian.Uint32(p[1:])
	if number == lastStatement {
		number = s.last
	}
	st, ok := s.statements[number]
	if !ok {
		return &failure{wire.Error{Code: errUnknownStatement, State: "HY000", Text: "Unknown prepared statement handler given to the router"}, false}
	}
	t.statement, t.traits = st, st.traits
	if err := st.failed; err != nil && t.command == wire.StmtExecute {
		s.unload(st)
		return err
	}
	return nil
}

// translate is the first packet of a request as up understands it.
func (s *session) translate(up *upstream, t *turn) ([]byte, error) {
	st := t.statement
	if st == nil {
		return t.first, nil
	}
	if err := s.again(up, st); err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint32(t.first[wire.HeaderSize+1:], st.id)
	if t.command != wire.StmtExecute || st.params == 0 {
		return t.first, nil
	}
	return s.typed(t)
}

// again prepares the statement anew, if up is not the one that knows it.
func (s *session) again(up *upstream, st *statement) error {
	if st.up == up {
		return nil
	}
	if st.text == nil {
		return errFixed
	}
	id, err := up.prepare(st.text)
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return &failure{*e, false}
	}
	if err != nil {
		return &lost{err}
	}
	st.up, st.id, st.told = up, id, false
	return nil
}

// typed sees to it that up knows the types of the parameters: a client sends
// them once, and maybe to the upstream before this one.
func (s *session) typed(t *turn) ([]byte, error) {
	st := t.statement
	at := executeHead + (st.params+7)/8
	p := t.payload()
	if len(p) <= at {
		return nil, errFixed
	}
	end := at + 1 + 2*st.params
	switch {
	case p[at] != 0 && len(p) < end:
		return nil, errFixed
	case p[at] != 0:
		if !bytes.Equal(st.types, p[at+1:end]) {
			st.types = bytes.Clone(p[at+1 : end])
		}
		st.told = true
		return t.first, nil
	case st.told:
		return t.first, nil
	}
	n := len(p) + len(st.types)
	if n+t.rest >= wire.MaxPayload || len(st.types) != 2*st.params {
		return nil, errFixed
	}
	b := make([]byte, wire.HeaderSize, wire.HeaderSize+n)
	wire.PutHeader(b, n+t.rest, t.sequence)
	b = append(append(append(b, p[:at]...), 1), st.types...)
	st.told = true
	return append(b, p[at+1:]...), nil
}

// longData passes a parameter's data, which nobody answers.
func (s *session) longData(ctx context.Context, q *request) error {
	t := &turn{request: q, open: s.open}
	if s.find(t) != nil {
		return s.in.skip(s.Conn, q)
	}
	st := t.statement
	if !st.loaded {
		st.loaded = true
		defer func() { s.loaded++ }()
	}
	up, err := s.ready(t)
	if up == nil && err == nil {
		waiting, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		up, err = s.fetch(waiting)
	}
	if err == nil {
		_, err = s.send(up, t)
	}
	if err != nil {
		st.failed = err
		if _, ok := errors.AsType[*lost](err); ok {
			s.lose()
			st.failed = errUnknown
		}
	}
	return s.in.skip(s.Conn, q)
}

// unload is when a statement's long data is gone.
func (s *session) unload(st *statement) {
	st.failed = nil
	if st.loaded {
		st.loaded = false
		s.loaded--
	}
}

// setCursor notes whether a statement's cursor is open.
func (s *session) setCursor(st *statement, open bool) {
	switch {
	case open && !st.cursor:
		s.cursors++
	case !open && st.cursor:
		s.cursors--
	}
	st.cursor = open
}

// closeStatement forgets a statement. Nobody answers.
func (s *session) closeStatement(q *request) error {
	t := &turn{request: q}
	if s.find(t) != nil {
		return s.in.skip(s.Conn, q)
	}
	st := t.statement
	s.unload(st)
	s.setCursor(st, false)
	delete(s.statements, st.number)
	s.mu.Lock()
	up := s.up
	s.mu.Unlock()
	if up != nil && up == st.up {
		binary.LittleEndian.PutUint32(q.first[wire.HeaderSize+1:], st.id)
		_, _ = up.Write(q.first) // if it is gone the next request finds out
	}
	return nil
}
