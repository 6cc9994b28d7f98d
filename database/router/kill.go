package router

import (
	"encoding/binary"
	"regexp"
	"strconv"

	"trivet/database/router/wire"
)

// The number that a client was greeted with is the router's. Whoever wants to
// have a statement interrupted knows no other.

var killText = regexp.MustCompile(`(?is)^\s*kill\s+(?:(?:hard|soft)\s+)?(?:(connection|query)\s+)?(\d+)\s*;?\s*$`)

// kill has a KILL of one of this router's sessions name the connection that
// the session has to the server.
func (s *session) kill(t *turn) {
	number, query, ok := killed(t)
	if !ok {
		return
	}
	victim := s.r.sessions.find(number)
	if victim == nil {
		return
	}
	victim.mu.Lock()
	defer victim.mu.Unlock()
	text := "DO 0" // it has no statement under way
	switch {
	case victim.p != s.p:
	case victim.up != nil && query:
		text = "KILL QUERY " + strconv.FormatUint(uint64(victim.up.thread), 10)
	case victim.up != nil:
		text = "KILL " + strconv.FormatUint(uint64(victim.up.thread), 10)
	}
	if !query && victim != s {
		victim.end()
	}
	t.command = wire.Query
	t.first = wire.Frame(t.sequence, append([]byte{byte(wire.Query)}, text...))
}

// killed is the number in a KILL.
func killed(t *turn) (number uint32, query, ok bool) {
	p := t.payload()
	if t.command == wire.ProcessKill {
		if len(p) < 5 {
			return 0, false, false
		}
		return binary.LittleEndian.Uint32(p[1:]), false, true
	}
	if t.traits&wire.Kill == 0 || !t.whole {
		return 0, false, false
	}
	m := killText.FindSubmatch(p[1:])
	if m == nil {
		return 0, false, false
	}
	n, err := strconv.ParseUint(string(m[2]), 10, 32)
	return uint32(n), len(m[1]) > 0 && (m[1][0]|0x20) == 'q', err == nil
}
