package proxy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"trivet/proxy/wire"
)

var errStarted = errors.New("answer has been begun already")

// Answer gives the whole answer. A HEAD request, a 204 and a 304 get no body.
func (x *Exchange) Answer(status int, fields []wire.Field, body []byte) {
	length := int64(len(body))
	if status == 304 {
		length = -1 // of what is not sent: not known here
	}
	if x.Start(status, fields, length) != nil {
		return
	}
	if _, err := x.Write(body); err == nil {
		_ = x.End(nil)
	}
}

// Start begins the answer: fields, without those of a name in Out, then Out,
// and Date if it is not among them. Cookies and Vary in Out are added to the
// others. length is the body's; -1: not known. Only one answer can be begun.
func (x *Exchange) Start(status int, fields []wire.Field, length int64) error {
	if x.started {
		return errStarted
	}
	x.started, x.Status = true, status
	x.bodiless = status == 204 || status == 304 || string(x.Request.Method) == "HEAD"
	if status == 204 {
		length = -1
	}
	if x.Stamp != nil {
		x.Stamp(x)
	}
	x.merge(fields)
	return x.note(x.Stream.Head(status, x.fields, length))
}

// merge puts the answer's fields together.
func (x *Exchange) merge(fields []wire.Field) {
	x.fields = x.fields[:0]
	dated := false
	for i := range fields {
		f := &fields[i]
		if f.Kind.Framing() || replaced(f, x.Out) {
			continue
		}
		dated = dated || f.Kind == wire.Date
		x.fields = append(x.fields, *f)
	}
	for i := range x.Out {
		dated = dated || x.Out[i].Kind == wire.Date
	}
	x.fields = append(x.fields, x.Out...)
	if !dated {
		x.fields = append(x.fields, wire.Field{Name: dateName, Value: date(x.Begin), Kind: wire.Date})
	}
}

// replaced says that one of out stands in for f.
func replaced(f *wire.Field, out []wire.Field) bool {
	if f.Kind == wire.SetCookie || f.Kind == wire.Vary {
		return false
	}
	for i := range out {
		if len(f.Name) == len(out[i].Name) && bytes.EqualFold(f.Name, out[i].Name) {
			return true
		}
	}
	return false
}

// Write sends a part of the body, or nothing where the answer must have none.
func (x *Exchange) Write(p []byte) (int, error) {
	if x.bodiless || len(p) == 0 {
		return len(p), nil
	}
	n, err := x.Stream.Write(p)
	x.Sent += int64(n)
	return n, x.note(err)
}

// Flush sends what is held back.
func (x *Exchange) Flush() error { return x.note(x.Stream.Flush()) }

// End ends the answer.
func (x *Exchange) End(trailer []wire.Field) error { return x.note(x.Stream.End(trailer)) }

// Abort breaks the answer off because of err.
func (x *Exchange) Abort(err error) {
	x.Broken = true
	if x.Err == nil {
		x.Err = err
	}
	x.Stream.Abort()
}

// SendFile sends n bytes of f, from offset on, as a part of the body: by
// sendfile(2) where nothing is encrypted.
func (x *Exchange) SendFile(f *os.File, offset, n int64) error {
	if x.bodiless || n == 0 {
		return nil
	}
	if s, ok := x.Stream.(sender); ok {
		sent, err := s.SendFile(f, offset, n)
		x.Sent += sent
		return x.note(err)
	}
	return x.copyFile(f, offset, n)
}

func (x *Exchange) copyFile(f *os.File, offset, n int64) error {
	b := takeBlock(pieceFor(n))
	defer b.give()
	for n > 0 {
		p := b.b[:min(n, int64(len(b.b)))]
		k, err := f.ReadAt(p, offset)
		if k == 0 {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if _, err := x.Write(p[:k]); err != nil {
			return err
		}
		offset, n = offset+int64(k), n-int64(k)
	}
	return nil
}

// note keeps why the client could not be written to.
func (x *Exchange) note(err error) error {
	if err != nil {
		x.Broken = true
		if x.Err == nil {
			x.Err = err
		}
	}
	return err
}

var dateName = []byte("Date")

// dated is the Date field's value in one second.
type dated struct {
	second int64
	value  []byte
}

var lastDate atomic.Pointer[dated]

// date is now as RFC 9110, 5.6.7 wants it.
func date(now time.Time) []byte {
	second := now.Unix()
	if d := lastDate.Load(); d != nil && d.second == second {
		return d.value
	}
	d := &dated{second, now.UTC().AppendFormat(nil, "Mon, 02 Jan 2006 15:04:05 GMT")}
	lastDate.Store(d)
	return d.value
}
