package router

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"trivet/database/router/wire"
)

// fetch gets the session an upstream, and tells it what it has to know.
func (s *session) fetch(ctx context.Context) (*upstream, error) {
	for {
		s.r.held.Add(1)
		up, err := s.p.get(ctx, s.profile, s.database)
		s.r.held.Add(-1)
		if e, ok := errors.AsType[*wire.Error](err); ok && lasting(e) {
			return nil, &failure{*e, true}
		}
		if err != nil {
			return nil, noWriter(err)
		}
		if err = s.teach(up); err == nil && s.adopt(up) {
			return up, nil
		}
		up.cut()
		s.p.gone()
		if e, ok := errors.AsType[*wire.Error](err); ok && !notReady(e) {
			s.r.log.Info("a session cannot go on", "err", err)
			return nil, errFixed
		}
		if !pause(ctx, 20*time.Millisecond) {
			return nil, noWriter(errNotReady)
		}
	}
}

// adopt makes up the session's, unless statements go elsewhere by now.
func (s *session) adopt(up *upstream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.p.fresh(up) {
		return false
	}
	s.up = up
	return true
}

// teach brings up into the state that the client believes in.
func (s *session) teach(up *upstream) error {
	up.database = s.database
	var steps []string
	if len(s.names) > 0 {
		steps = append(steps, string(s.names))
	}
	if q := assignments(s.variables); q != "" {
		steps = append(steps, q)
	}
	if len(s.once) > 0 {
		steps = append(steps, string(s.once))
	}
	for _, q := range steps {
		if err := up.exec(wire.Query, q); err != nil {
			return err
		}
	}
	return nil
}

// assignments is the statement that sets the variables.
func assignments(variables map[string]string) string {
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(variables)) {
		b.WriteString(map[bool]string{true: "SET ", false: ","}[i == 0])
		b.WriteString("@@session.`" + strings.ReplaceAll(name, "`", "``") + "`=")
		b.WriteString(literal(name, variables[name]))
	}
	return b.String()
}

// literal is a value as SQL: the server reports numbers as text, but takes
// text for none of them.
func literal(name, value string) string {
	switch {
	case value == "" && name == "character_set_results":
		return "NULL"
	case numeric(value):
		return value
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(value) + "'"
}

// numeric reports whether s is a plain number.
func numeric(s string) bool {
	digits := 0
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			digits++
		case c == '-' && i == 0, c == '.' && digits > 0:
		default:
			return false
		}
	}
	return digits > 0
}

// Variables that cannot be given to another session, by the beginning of
// their names, and those that need not be.
var (
	unmovable = []string{"timestamp", "insert_id", "rand_seed", "pseudo_", "gtid_", "session_track_"}
	fleeting  = map[string]bool{"last_insert_id": true, "identity": true, "last_gtid": true} // the last is reported with each commit
	charset   = map[string]bool{"character_set_client": true, "character_set_connection": true, "character_set_results": true, "collation_connection": true}
)

// note remembers what a statement has changed.
func (s *session) note(t *turn, changes []byte) {
	said := false
	for c := range wire.Each(changes) {
		switch c.Kind {
		case wire.ChangeSchema:
			s.setDatabase(string(c.Value))
			said = true
		case wire.ChangeVariable:
			s.noteVariable(t, string(c.Name), string(c.Value))
			said = true
		}
	}
	if !said { // a user variable, a temporary table, a statement in SQL, a role
		s.fixed = true
	}
}

func (s *session) setDatabase(name string) {
	s.database = name
	s.mu.Lock()
	if s.up != nil {
		s.up.database = name
	}
	s.mu.Unlock()
}

func (s *session) noteVariable(t *turn, name, value string) {
	switch {
	case t.traits&wire.SetStatement != 0 || fleeting[name]:
		return
	case t.traits&wire.SetNames != 0 && charset[name]:
		return
	case slices.ContainsFunc(unmovable, func(p string) bool { return strings.HasPrefix(name, p) }):
		s.fixed = true
		return
	}
	if s.variables == nil {
		s.variables = map[string]string{}
	}
	s.variables[name] = value
}

// learn remembers what an answered request means for the session.
func (s *session) learn(t *turn) {
	failed := s.reply.Code != 0
	switch t.command {
	case wire.Query, wire.StmtExecute:
		s.executed(t, failed)
	case wire.InitDB:
		if !failed {
			s.setDatabase(string(t.payload()[1:]))
		}
	case wire.SetOption:
		if p := t.payload(); !failed && len(p) >= 2 { // 0: several statements at once may be sent
			s.odd = (p[1] == 0) != (s.profile.capabilities&wire.ClientMultiStatement != 0)
		}
	case wire.StmtReset:
		s.unload(t.statement)
		s.setCursor(t.statement, false)
	case wire.StmtFetch:
		s.setCursor(t.statement, !failed && s.reply.Status&wire.StatusLastRowSent == 0)
	}
}

// executed is learn for a statement.
func (s *session) executed(t *turn, failed bool) {
	s.fixed = s.fixed || t.traits&wire.Leaves != 0
	if st := t.statement; st != nil {
		s.unload(st)
		s.setCursor(st, !failed && s.reply.Status&wire.StatusCursorExists != 0)
	}
	text := t.text
	if t.statement != nil {
		text = t.statement.text
	}
	s.once = nil
	switch {
	case failed:
	case t.traits&(wire.SetNames|wire.SetTransaction) != 0 && (t.traits&wire.Many != 0 || text == nil || !t.whole):
		s.fixed = true
	case t.traits&wire.SetTransaction != 0:
		s.once = bytes.Clone(text)
	case t.traits&wire.SetNames != 0:
		s.names = bytes.Clone(text)
		maps.DeleteFunc(s.variables, func(name, _ string) bool { return charset[name] })
	}
}
