package wire

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// Kinds of a Change.
const (
	ChangeVariable byte = 0 // Name and Value of a system variable
	ChangeSchema   byte = 1 // Value is the database
	ChangeState    byte = 2 // something of the session, said or not said by other changes
)

// Change is one thing that a statement changed in the session.
type Change struct {
	Kind        byte
	Name, Value []byte
}

// OK is an OK packet; it shares the memory of the payload.
type OK struct {
	Status  uint16
	Changes []byte // as they came

	before []byte // up to the status
	after  []byte // warnings
	info   []byte
}

// ParseOK reads an OK packet of a connection with ClientSessionTrack.
func ParseOK(payload []byte) (OK, error) {
	r := reader{b: payload}
	if head := r.number(1); head != uint64(headOK) && head != uint64(headEOF) {
		return OK{}, ErrMalformed
	}
	r.lenenc()
	r.lenenc()
	o := OK{before: payload[:len(payload)-len(r.b)], Status: uint16(r.number(2)), after: r.take(2)}
	if len(r.b) > 0 {
		o.info = r.text()
	}
	if o.Status&StatusSessionChanged != 0 && len(r.b) > 0 {
		o.Changes = r.text()
	}
	if r.bad {
		return OK{}, ErrMalformed
	}
	return o, nil
}

// Append appends the payload of o, with these changes in place of its own; nil: none.
func (o OK) Append(b, changes []byte) []byte {
	status := o.Status &^ StatusSessionChanged
	if len(changes) > 0 {
		status |= StatusSessionChanged
	}
	b = append(b, o.before...)
	b = binary.LittleEndian.AppendUint16(b, status)
	b = append(b, o.after...)
	if len(o.info) > 0 || len(changes) > 0 {
		b = appendText(b, o.info)
	}
	if len(changes) > 0 {
		b = appendText(b, changes)
	}
	return b
}

// Each are the changes in an OK packet's Changes, up to the first that is malformed.
func Each(changes []byte) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		for r := (reader{b: changes}); len(r.b) > 0; {
			kind := byte(r.number(1))
			in := reader{b: r.text()}
			c := Change{Kind: kind, Value: in.b}
			switch kind {
			case ChangeVariable:
				c.Name, c.Value = in.text(), in.text()
			case ChangeSchema, ChangeState:
				c.Value = in.text()
			}
			if r.bad || in.bad || !yield(c) {
				return
			}
		}
	}
}

// AppendChange appends c to the changes in b.
func AppendChange(b []byte, c Change) []byte {
	var in []byte
	switch c.Kind {
	case ChangeVariable:
		in = appendText(appendText(nil, c.Name), c.Value)
	case ChangeSchema, ChangeState:
		in = appendText(nil, c.Value)
	default:
		in = c.Value
	}
	return appendText(append(b, c.Kind), in)
}

// Done is the payload of an OK packet that says nothing but the status.
func Done(status uint16) []byte {
	return []byte{headOK, 0, 0, byte(status), byte(status >> 8), 0, 0}
}

// IsOK reports whether payload is an OK packet.
func IsOK(payload []byte) bool { return len(payload) > 0 && payload[0] == headOK }

// Error is an error of the server's, or of ours in its form.
type Error struct {
	Code  uint16
	State string // five characters; empty before the handshake
	Text  string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%d (%s): %s", e.Code, e.State, e.Text) }

// Append appends the payload to b. Text is cut to what clients take.
func (e *Error) Append(b []byte) []byte {
	b = append(b, headErr, byte(e.Code), byte(e.Code>>8))
	if len(e.State) == 5 {
		b = append(append(b, '#'), e.State...)
	}
	return append(b, e.Text[:min(len(e.Text), 500)]...)
}

// ParseError reads an error packet; nil if it is none.
func ParseError(payload []byte) *Error {
	if len(payload) < 3 || payload[0] != headErr {
		return nil
	}
	e := &Error{Code: binary.LittleEndian.Uint16(payload[1:])}
	rest := payload[3:]
	if len(rest) >= 6 && rest[0] == '#' {
		e.State, rest = string(rest[1:6]), rest[6:]
	}
	e.Text = string(rest)
	return e
}
