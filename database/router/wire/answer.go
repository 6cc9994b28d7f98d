package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrLocalInfile is a server that asks for a file of the client's, which it
// was not allowed to.
var ErrLocalInfile = errors.New("the server asks for a local file")

type phase byte

const (
	phaseDone    phase = iota
	phaseHead          // OK, error, or a result set's number of columns
	phaseOne           // a single packet, whatever it is
	phasePrepare       // of a COM_STMT_PREPARE
	phaseDefs          // column definitions
	phaseEOF           // that ends them
	phaseRows
)

// Reply follows the packets of one answer and says where it ends. The zero
// value is an answer that has ended.
type Reply struct {
	Status    uint16 // of the last packet that had one
	Code      uint16 // of the error that ended it; 0: none
	Statement uint32 // that a COM_STMT_PREPARE made
	Params    uint16 // of that statement
	Rows      uint64 // that have come, of all results

	deprecate bool
	phase     phase
	after     phase // phaseDefs
	defs      uint64
	next      uint64 // definitions of a second group: the columns after the parameters
	continued bool   // the next packet continues the one before
}

// Expect begins the answer to a command, on a connection with these capabilities.
func (a *Reply) Expect(c Command, capabilities uint32) {
	*a = Reply{Status: a.Status, deprecate: capabilities&ClientDeprecateEOF != 0, phase: phaseOne}
	switch c {
	case Query, StmtExecute, ProcessInfo:
		a.phase = phaseHead
	case StmtPrepare:
		a.phase = phasePrepare
	case StmtFetch, FieldList:
		a.phase = phaseRows
	case Quit, StmtClose, StmtSendLongData:
		a.phase = phaseDone
	}
}

// Ended reports whether the last packet has come, continuations included.
func (a *Reply) Ended() bool { return a.phase == phaseDone && !a.continued }

// First reports whether the next packet is the first of a result: what stands
// in it then is no row.
func (a *Reply) First() bool { return a.phase == phaseHead || a.phase == phaseOne }

// Whole reports whether Next has to see all of a packet of n bytes whose first is first.
func (a *Reply) Whole(n int, first byte) bool {
	switch {
	case a.continued || n == 0 || n > longestSessionMessage:
		return false
	case a.phase == phaseDefs:
		return first == headErr
	case a.phase == phaseRows:
		return first == headErr || a.endsRows(n, first)
	}
	return true
}

func (a *Reply) endsRows(n int, first byte) bool {
	return first == headEOF && (n <= longestEOF || a.deprecate && n < MaxPayload)
}

// HasOK reports whether the next packet, which is whole, is an OK packet.
func (a *Reply) HasOK(payload []byte) bool {
	switch a.phase {
	case phaseHead:
		return payload[0] == headOK
	case phaseOne:
		return payload[0] == headOK || payload[0] == headEOF && len(payload) > shortEOF
	case phaseRows:
		return a.deprecate && a.endsRows(len(payload), payload[0])
	}
	return false
}

// Next takes the next packet, of n bytes. Of one that Whole does not ask for,
// payload needs to hold the first byte only, if it has one.
func (a *Reply) Next(n int, payload []byte) error {
	continuation := a.continued
	a.continued = n == MaxPayload
	switch {
	case continuation:
		return nil
	case n == 0:
		if a.phase == phaseRows || a.phase == phaseOne {
			return nil
		}
		return ErrMalformed
	case len(payload) == 0:
		return ErrMalformed
	case payload[0] == headErr && a.Whole(n, headErr):
		return a.failed(payload)
	}
	return a.packet(n, payload)
}

func (a *Reply) packet(n int, payload []byte) error {
	switch a.phase {
	case phaseHead:
		return a.head(payload)
	case phaseOne:
		return a.one(payload)
	case phasePrepare:
		return a.prepared(payload)
	case phaseDefs:
		if a.defs--; a.defs == 0 {
			a.defined()
		}
		return nil
	case phaseEOF:
		return a.eof(payload)
	case phaseRows:
		if a.endsRows(n, payload[0]) {
			return a.lastRow(payload)
		}
		a.Rows++
		return nil
	}
	return fmt.Errorf("%w: one after the end", ErrMalformed)
}

func (a *Reply) failed(payload []byte) error {
	if len(payload) < 3 {
		return ErrMalformed
	}
	a.Code, a.phase = binary.LittleEndian.Uint16(payload[1:]), phaseDone
	return nil
}

func (a *Reply) head(payload []byte) error {
	switch payload[0] {
	case headOK:
		return a.ok(payload)
	case headLocalInfile:
		return ErrLocalInfile
	}
	r := reader{b: payload}
	a.defs, a.after = r.lenenc(), phaseRows
	if r.bad || a.defs == 0 {
		return ErrMalformed
	}
	a.phase = phaseDefs
	return nil
}

// one ends the answer; most have a status.
func (a *Reply) one(payload []byte) error {
	switch {
	case a.HasOK(payload):
		return a.ok(payload)
	case payload[0] == headEOF && len(payload) == 5:
		a.Status = binary.LittleEndian.Uint16(payload[3:])
	}
	a.phase = phaseDone
	return nil
}

// ok ends a result.
func (a *Reply) ok(payload []byte) error {
	r := reader{b: payload[1:]}
	r.lenenc()
	r.lenenc()
	status := uint16(r.number(2))
	if r.bad {
		return ErrMalformed
	}
	a.result(status)
	return nil
}

// result ends a result that is the last one or not.
func (a *Reply) result(status uint16) {
	a.Status, a.phase = status, phaseDone
	if status&StatusMoreResults != 0 {
		a.phase = phaseHead
	}
}

func (a *Reply) lastRow(payload []byte) error {
	if a.deprecate && len(payload) > 5 {
		return a.ok(payload)
	}
	if len(payload) < 5 {
		return ErrMalformed
	}
	a.result(binary.LittleEndian.Uint16(payload[3:]))
	return nil
}

// eof is what separates definitions from what comes after them. A cursor's rows are fetched later.
func (a *Reply) eof(payload []byte) error {
	if payload[0] != headEOF || len(payload) < 5 {
		return ErrMalformed
	}
	a.Status = binary.LittleEndian.Uint16(payload[3:])
	if a.phase = a.after; a.phase == phaseRows && a.Status&StatusCursorExists != 0 {
		a.phase = phaseDone
	}
	a.second()
	return nil
}

// defined is the end of a group of definitions.
func (a *Reply) defined() {
	if !a.deprecate {
		a.phase = phaseEOF
		return
	}
	a.phase = a.after
	a.second()
}

// second begins the columns after the parameters, if there are any.
func (a *Reply) second() {
	if a.phase == phaseDone && a.next > 0 {
		a.phase, a.defs, a.next = phaseDefs, a.next, 0
	}
}

func (a *Reply) prepared(payload []byte) error {
	if payload[0] != headOK || len(payload) < prepareAnswer {
		return ErrMalformed
	}
	a.Statement = binary.LittleEndian.Uint32(payload[1:])
	columns := binary.LittleEndian.Uint16(payload[5:])
	a.Params = binary.LittleEndian.Uint16(payload[7:])
	a.after, a.phase, a.next = phaseDone, phaseDone, uint64(columns)
	if a.Params > 0 {
		a.phase, a.defs = phaseDefs, uint64(a.Params)
	}
	a.second()
	return nil
}
