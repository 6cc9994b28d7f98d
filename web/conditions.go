package web

import (
	"bytes"
	"net/http"
	"time"

	"trivet/proxy/wire"
)

// judgement is what a request's conditions come to.
type judgement uint8

const (
	serve       judgement = iota
	notModified           // 304
	failed                // 412
)

// judge weighs the conditions of a GET or HEAD in the order of RFC 9110, 13.2.2.
func (f *file) judge(fields []wire.Field) judgement {
	if v := wire.Find(fields, wire.IfMatch); v != nil {
		if !f.matches(fields, wire.IfMatch, false) {
			return failed
		}
	} else if t, ok := when(wire.Find(fields, wire.IfUnmodifiedSince)); ok && f.modified.After(t) {
		return failed
	}
	if v := wire.Find(fields, wire.IfNoneMatch); v != nil {
		if f.matches(fields, wire.IfNoneMatch, true) {
			return notModified
		}
	} else if t, ok := when(wire.Find(fields, wire.IfModifiedSince)); ok && !f.modified.After(t) {
		return notModified
	}
	return serve
}

// matches says whether a field of that kind lists f's tag, or is *. Weak tags
// count only where weak (RFC 9110, 8.8.3.2).
func (f *file) matches(fields []wire.Field, k wire.Kind, weak bool) bool {
	for i := range fields {
		if fields[i].Kind != k {
			continue
		}
		for element := range bytes.SplitSeq(fields[i].Value, []byte{','}) {
			tag := bytes.TrimSpace(element)
			if weak {
				tag = bytes.TrimPrefix(tag, []byte("W/"))
			}
			if string(tag) == "*" || string(tag) == f.tag {
				return true
			}
		}
	}
	return false
}

// when reads a date of any of the three forms (RFC 9110, 5.6.7).
func when(v []byte) (time.Time, bool) {
	if v == nil {
		return time.Time{}, false
	}
	t, err := http.ParseTime(string(v))
	return t, err == nil
}
